"""Where DICOM comes from, by `--studies`: a PACS by its URL or a folder of files, and the DICOMweb routes that fit."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from fastapi import APIRouter
from fastapi.params import Depends
from monailabel.config import settings

from medsegr.dicom.folder import DicomFolder
from medsegr.dicom.folder_archive import FolderArchive
from medsegr.dicom.pacs import Pacs, PacsLogin
from medsegr.errors import MedSegRError
from medsegr.web.dicom_proxy import proxy_router
from medsegr.web.dicomweb import closed_router, dicomweb_router

OTHER_ARCHIVES = ("xnat", "dsa")
TOKEN_VARIABLE = "MEDSEGR_PACS_TOKEN"
STOCK_SEARCH = {"Modality": "CT"}
"""MONAI Label's own default filter, which hides every other modality."""
ELSEWHERE = (".nii.gz", ".nii", ".nrrd", ".png", ".jpg", ".jpeg")
"""A folder that holds one of these is a folder of images, whatever DICOM lies beside."""


def open_archive(studies: str, state: Path, conf: Mapping[str, str]) -> Pacs | FolderArchive | None:
    """The PACS at a URL, or the folder; None for archives that MONAI Label serves by itself (XNAT, DSA).

    `conf` may name `pacs_token_file`; a token may also be in MEDSEGR_PACS_TOKEN, user and password in MONAI Label's settings
    or, last, in the URL.
    """
    if not studies.startswith(("http://", "https://")):
        return FolderArchive(DicomFolder(Path(studies), state / "dicom"))
    if (settings.MONAI_LABEL_DATASTORE or "").lower() in OTHER_ARCHIVES:
        return None
    file = conf.get("pacs_token_file")
    parts = urlsplit(studies)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    login = PacsLogin(
        user=settings.MONAI_LABEL_DATASTORE_USERNAME or settings.MONAI_LABEL_DICOMWEB_USERNAME or user,
        password=settings.MONAI_LABEL_DATASTORE_PASSWORD
        or settings.MONAI_LABEL_DICOMWEB_PASSWORD
        or password,
        token=os.environ.get(TOKEN_VARIABLE, ""),
        token_file=Path(file) if file else None,
    )
    prefixes = {
        name: str(getattr(settings, f"MONAI_LABEL_{name.upper()}_PREFIX") or "")
        for name in ("qido", "wado", "stow")
    }
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return Pacs(bare, login, prefixes, _search())


def is_dicom(archive: FolderArchive) -> bool:
    """Whether a folder is one of DICOM files: it holds some, and no other images at its top."""
    root = archive.folder.root
    if not root.is_dir() or any(p.name.lower().endswith(ELSEWHERE) for p in root.iterdir()):
        return False
    return bool(archive.folder.index().series)


def dicom_routers(archive: Pacs | FolderArchive | None, guards: Sequence[Depends]) -> list[APIRouter]:
    """Routers of `/proxy/dicom`; what they do not know is refused, never handed to MONAI Label's own proxy."""
    closed = closed_router(guards)
    if archive is None:
        return [closed]
    if isinstance(archive, Pacs):
        return [proxy_router(archive, guards), closed]
    threading.Thread(target=archive.folder.index, name="medsegr-dicom-index", daemon=True).start()
    return [dicomweb_router(archive.folder, guards), closed]


def _search() -> dict[str, str]:
    """QIDO filters of the listing, from MONAI Label's setting; its default of CT alone is taken for none."""
    asked: object = settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER
    try:
        found = json.loads(asked) if isinstance(asked, str) else dict(asked or {})
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise MedSegRError(
            'MONAI_LABEL_DICOMWEB_SEARCH_FILTER is no JSON object; QIDO filters such as {"Modality": "MR"} '
            "are expected."
        )
    return {} if found == STOCK_SEARCH else {str(key): str(value) for key, value in found.items()}
