"""Keep question text and patients out of every log: stock endpoints write whole requests and what is known about an
image, so lines that look like one are cut, and so are the query strings of access logs (a client may put its question
or a patient's name there) and the UIDs in their paths. Libraries that would write a PACS' URLs or the values of a DICOM
file are hushed.
"""

from __future__ import annotations

import logging
import re
import warnings

SUSPECT = re.compile(
    r"""\\?["'](?:question|history|answer|params|turns|Patient\w+)\\?["']\s*:"""
    r"""|Save Label params:|Label Info:|; params:"""
)
ACCESS_LOG, PATH_ARGUMENT = "uvicorn.access", 2
UID = re.compile(r"[0-9]+(?:\.[0-9]+){3,}")
TALKATIVE = ("httpx", "httpcore", "dicomweb_client", "pydicom", "python_multipart")
"""Loggers whose messages below WARNING hold URLs, UIDs or values of attributes."""
CUT = "(a request or reply was here; its text is not logged)"


class QuestionFilter(logging.Filter):
    """Replaces a record whose message holds a request or a reply."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Cut the message if need be; the record itself always stays."""
        arguments = record.args
        if record.name == ACCESS_LOG and isinstance(arguments, tuple) and len(arguments) > PATH_ARGUMENT:
            bare = str(arguments[PATH_ARGUMENT]).partition("?")[0]
            bare = UID.sub("(uid)", bare)
            record.args = (*arguments[:PATH_ARGUMENT], bare, *arguments[PATH_ARGUMENT + 1 :])
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        if SUSPECT.search(message):
            record.msg, record.args = CUT, ()
        if isinstance(record.exc_info, tuple) and any(SUSPECT.search(m) for m in _chain(record.exc_info[1])):
            record.exc_info, record.exc_text = None, None
        return True


def _chain(error: BaseException | None) -> list[str]:
    """The messages of an exception and of those behind it, which a traceback prints as well."""
    seen: dict[int, str] = {}
    pending = [error]
    while pending:
        current = pending.pop()
        if current is not None and id(current) not in seen:
            seen[id(current)] = str(current)
            pending += [current.__cause__, current.__context__]
    return list(seen.values())


def protect_logs() -> None:
    """Put the filter on every handler there is; call again after logging was set up. Idempotent."""
    warnings.filterwarnings("ignore", module=r"pydicom\.")  # "Invalid value for VR PN: …"
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    loggers = [
        logging.getLogger(),
        *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict)),
    ]
    for logger in loggers:
        for handler in logger.handlers:
            if not any(isinstance(f, QuestionFilter) for f in handler.filters):
                handler.addFilter(QuestionFilter())
