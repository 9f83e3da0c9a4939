"""MedSeg-R for MONAI Label: `monailabel start_server --app apps/medsegr --studies FOLDER_OR_DICOMWEB_URL`.

Options (`--conf NAME VALUE`): `checkpoint` a directory or preset (default: the weights that ship), `state`
where turns are kept (default: `state` in this folder), `device` cpu, cuda or auto, `preload` false to load
the model with the first question, `review` a MedSeg-QA file for physicians to review at /medsegr/review,
`ohif` the folder of an OHIF built for the root (`dist` of npm's @ohif/app), to be served at /. Rounds of fine-tuning:
`train_after` N corrections, `train_night` HH:MM-HH:MM, `train_minutes` at most, `train_device`, `train_processes`,
`keep_previous` false to free the memory that a rollback within seconds takes, `database` a Postgres URL. `looks`: how many
images without a label the model looks at ahead while nobody asks (200 of a folder, 20 of a PACS; 0 for none). Who may use the
server (docs/login.md): `login` a file of tokens or off, `oidc_issuer`, `oidc_client_id`, `oidc_client_secret_file`,
`oidc_user_claim`, `oidc_admin_role`, `public_url`.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from lib.activelearning.choosing import strategies
from lib.configs.medsegr import MedSegRConfig
from lib.datastore.dicom import DicomDatastore
from lib.datastore.label_files import LabelFiles
from lib.datastore.local import FolderDatastore
from lib.dicomweb import is_dicom, open_archive
from lib.images import Images
from lib.listening import listening
from lib.routes import install
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.others.generic import strtobool

from medsegr import __version__
from medsegr.choosing import Chooser
from medsegr.dicom.cache import SeriesCache, cache_bytes
from medsegr.qa.review.queue import ReviewQueue
from medsegr.rounds.registry import Registry
from medsegr.rounds.store import TurnStore
from medsegr.web.checkpoints import checkpoint_folder, read_targets
from medsegr.web.errors import Refusal
from medsegr.web.infer import label_info
from medsegr.web.learning import Learner
from medsegr.web.login.owner import where_to_log_in
from medsegr.web.login.settings import Decision, LoginOptionError, decide
from medsegr.web.logs import protect_logs
from medsegr.web.lookahead import Lookahead, pace_of
from medsegr.web.loop import LearningLoop, checksum, modified, policy_of
from medsegr.web.process import DEFAULT_FACTORY, WorkerSettings
from medsegr.web.service import Service
from medsegr.web.worker import ModelWorker

logger = logging.getLogger(__name__)
IMAGE_TYPES = (
    "*.nii.gz",
    "*.nii",
    "*.nrrd",
    "*.png",
    "*.jpg",
    "*.jpeg",
    "*.dcm",
    "*.PNG",
    "*.JPG",
    "*.JPEG",
    "*.DCM",
)
FACTORY_VARIABLE = "MEDSEGR_PREDICTOR_FACTORY"


class MedSegRApp(MONAILabelApp):  # type: ignore[misc]
    """Wires datastore, models, service and routes together."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        protect_logs()
        conf = conf or {}
        checkpoint = checkpoint_folder(conf.get("checkpoint", "embedded"))
        factory = os.environ.get(FACTORY_VARIABLE, DEFAULT_FACTORY)
        policy = policy_of(conf)
        self.state = Path(conf.get("state") or Path(app_dir) / "state")
        store = TurnStore(self.state, conf.get("database") or None)
        registry = Registry(store.database, checkpoint)
        version = registry.settle()
        worker = ModelWorker(WorkerSettings(str(version.directory), factory, conf.get("device", "auto")))
        self.review = ReviewQueue(Path(conf["review"])) if conf.get("review") else None
        self.ohif = Path(conf["ohif"]) if conf.get("ohif") else None
        self.service = Service(worker, store, read_targets(version.directory))
        keep = bool(strtobool(conf.get("keep_previous", "true")))
        self.loop = LearningLoop(self.service, registry, checkpoint, policy, keep_previous=keep)
        self.chooser = Chooser(store.database, self.state, self._answering)
        self.models = {"medsegr": MedSegRConfig()}
        for name, model in self.models.items():
            model.init(name, str(Path(app_dir) / "model"), conf, None, service=self.service, loop=self.loop)
        super().__init__(
            app_dir,
            studies,
            conf,
            name=f"MedSeg-R {__version__}",
            version=__version__,
            description="Ask a medical image a question and get an answer with masks. Research use only.",
        )
        self.images = Images(self._datastore, self.sessions())
        pace = pace_of(conf, local=self.archive is None or self.archive.local)
        self.lookahead = Lookahead(
            worker, self.chooser, self._datastore.get_unlabeled_images, self.images.resolve, pace
        )

    def init_infers(self) -> dict[str, InferTask]:
        """Every model under each of its names."""
        return {name: task for model in self.models.values() for name, task in model.infer().items()}

    def init_trainers(self) -> dict[str, TrainTask]:
        """The models that can be trained here."""
        trainers = {name: model.trainer() for name, model in self.models.items()}
        return {name: trainer for name, trainer in trainers.items() if trainer}

    def init_strategies(self) -> dict[str, Strategy]:
        """Ways to choose the next image."""
        return strategies(self.chooser)

    def _answering(self) -> str | None:
        """The version of the model that answers, as it names itself."""
        info = self.service.worker.info
        return info.version if info else None

    def init_datastore(self) -> Datastore:
        """A PACS by its DICOMweb URL, a folder of DICOM files, or a folder of images of every type that can be read."""
        self.archive = open_archive(self.studies, self.state, self.conf)
        if self.archive is None:
            return super().init_datastore()
        if not self.archive.local or is_dicom(self.archive):
            cache = SeriesCache(self.archive, self.state / "series", cache_bytes(self.conf))
            store_seg = strtobool(self.conf.get("store_seg", "true"))
            return DicomDatastore(self.archive, cache, LabelFiles(self.state / "labels"), store_seg)
        asked = settings.MONAI_LABEL_DATASTORE_FILE_EXT
        stock = type(settings).model_fields["MONAI_LABEL_DATASTORE_FILE_EXT"].default
        return FolderDatastore(
            self.studies,
            extensions=list(IMAGE_TYPES) if asked == stock else asked,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def _download_dcmqi_tools(self) -> None:
        """The stock app fetches dcmqi from the internet here; nothing is downloaded at start."""
        logger.debug("dcmqi is not fetched; DICOM SEG export needs it on the PATH.")

    def on_init_complete(self) -> None:
        """The server is up: begin to load the model and put our routes in front. Train and scoring children
        never get here.
        """
        from monailabel.app import app as application

        decision = self._decide_login()
        super().on_init_complete()
        protect_logs()
        if strtobool(self.conf.get("preload", "true")):
            self.service.worker.start()
        studies = Path(self.studies)
        learner = Learner(self.service.store, self.images.resolve, studies if studies.is_dir() else None)
        self.loop.start(catch_up=learner.build_missing)
        self.lookahead.start()
        names = {name: task.one_slice for name, task in self._infers.items()}
        install(
            application,
            self.service,
            self.images,
            names,
            self._datastore,
            self.review,
            self.ohif,
            decision,
            self.archive,
            self.loop,
            learner,
            chooser=self.chooser,
        )

    def _decide_login(self) -> Decision:
        """The login of this server; where to find the owner's token is told on the terminal, not in the log."""
        heard = listening(sys.argv[1:])
        trusted = [str(origin) for origin in settings.MONAI_LABEL_CORS_ORIGINS]
        if settings.MONAI_LABEL_AUTH_ENABLE:
            raise LoginOptionError(
                "MONAI_LABEL_AUTH_ENABLE is set, but MONAI Label's own login cannot read a token in 0.8.5; unset it and use "
                "`--conf login FILE` or `--conf oidc_issuer URL`."
            )
        decision = decide(self.conf, heard.host if heard else None, self.state, trusted)
        if decision.owner and decision.login and decision.login.tokens:
            base = heard.url if heard else f"http://127.0.0.1:{settings.MONAI_LABEL_SERVER_PORT}"
            address = f"{base}{settings.MONAI_LABEL_API_STR}/medsegr/login"
            sys.stderr.write(where_to_log_in(address, decision.login.tokens, decision.owner) + "\n")
            sys.stderr.flush()
        return decision

    def model_info(self, model: str) -> dict[str, Any] | None:
        """`/model/info`: the version in charge, with the stock keys; None for a model that does not exist."""
        if model not in self._infers:
            return None
        version = self.loop.charge.version
        trainer = self._trainers.get(model)
        return {
            "checksum": checksum(version),
            "modified_time": modified(version),
            "version": version.name,
            **({"train_stats": trainer.stats()} if trainer else {}),
        }

    def batch_infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """One image after the other: there is one model. (With `multi_gpu` the stock task needs a GPU.)"""
        result: dict[str, Any] = super().batch_infer({**request, "multi_gpu": False}, datastore)
        return result

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Answer a request of batch inference or of a caller in this process; `request["image"]` must be an
        id, never a path.
        """
        task = self._infers.get(str(request.get("model")))
        if task is None:
            raise Refusal(404, f"There is no model of this name; known are {', '.join(self._infers)}.")
        image = self.images.resolve(str(request.get("image", "")))
        path, params = task({**request, "image": str(image.path), "image_file": image})
        label = path
        if request.get("save_label"):
            tag = request.get("label_tag", DefaultLabelTag.ORIGINAL)
            info = label_info(str(request["model"]), params)
            try:
                label = (datastore or self._datastore).save_label(image.id, path, tag, info)
            except BaseException:
                Path(path).unlink(missing_ok=True)
                raise
        return {"label": label, "tag": DefaultLabelTag.ORIGINAL, "file": path, "params": params}
