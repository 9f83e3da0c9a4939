"""Keep uploaded label maps in MONAI Label's datastore, as the stock route does, and tell the app."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.utils.app import app_instance

from lib.datastore.dicom import DicomDatastore
from medsegr.errors import MedSegRError
from medsegr.web.errors import Refusal
from medsegr.web.label_upload import LabelKeeper

logger = logging.getLogger(__name__)


def label_keeper(datastore: Datastore) -> LabelKeeper:
    """Saves in `datastore`; `Refusal` 400 where it says no, 502 where the archive behind it fails."""

    def save(image_id: str, path: Path, tag: str, info: dict[str, Any]) -> str:
        try:
            return str(datastore.save_label(image_id, str(path), tag, info))
        except MONAILabelException as error:
            raise Refusal(400, str(getattr(error, "msg", "The label cannot be saved."))) from error
        except MedSegRError:
            raise
        except Exception as error:
            # Broad on purpose: an archive that is away or full raises whatever its client does.
            logger.error("A label could not be saved (%s).", type(error).__name__)
            raise Refusal(
                502, f"The datastore could not keep the label ({type(error).__name__}); nothing was recorded."
            ) from error

    def saved(image_id: str, label_id: str) -> dict[str, Any]:
        told = datastore.told(label_id) if isinstance(datastore, DicomDatastore) else {}
        return dict(app_instance().on_save_label(image_id, label_id) or {}) | told

    return LabelKeeper(save, saved)
