"""Keep question text out of every log: stock endpoints write whole requests, so lines that look like one are
cut.
"""

from __future__ import annotations

import logging
import re

SUSPECT = re.compile(
    r"""\\?["'](?:question|history|answer|params|turns)\\?["']\s*:|Save Label params:|Label Info:"""
)
CUT = "(a request or reply was here; its text is not logged)"


class QuestionFilter(logging.Filter):
    """Replaces a record whose message holds a request or a reply."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Cut the message if need be; the record itself always stays."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        if SUSPECT.search(message):
            record.msg, record.args = CUT, ()
        if isinstance(record.exc_info, tuple) and SUSPECT.search(str(record.exc_info[1])):
            record.exc_info, record.exc_text = None, None
        return True


def protect_logs() -> None:
    """Put the filter on every handler there is; call again after logging was set up. Idempotent."""
    loggers = [
        logging.getLogger(),
        *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict)),
    ]
    for logger in loggers:
        for handler in logger.handlers:
            if not any(isinstance(f, QuestionFilter) for f in handler.filters):
                handler.addFilter(QuestionFilter())
