"""No request and no reply gets through to a handler."""

from __future__ import annotations

import io
import logging

import pytest

from medsegr.web.logs import protect_logs


@pytest.mark.parametrize(
    "message",
    [
        "Infer Request: {'model': 'medsegr', 'question': 'SECRET'}",
        'COMMAND:: python -r {"model":"m","question":"SECRET"}',
        'Save Label params: {"label_info": "SECRET"}',
        'Result: {"params": {"answer": "SECRET"}}',
    ],
)
def test_lines_that_hold_questions_are_cut(message: str) -> None:
    stream = io.StringIO()
    handler, logger = logging.StreamHandler(stream), logging.getLogger("monailabel.test")
    logger.addHandler(handler)
    try:
        protect_logs()
        protect_logs()
        assert len(handler.filters) == 1
        logger.error(message)
        logger.error("%s", message)
        try:
            raise ValueError(message)
        except ValueError:
            logger.exception("It failed")
        logger.error("Model %s is ready", "v1")
    finally:
        logger.removeHandler(handler)
    assert "SECRET" not in stream.getvalue() and "Model v1 is ready" in stream.getvalue()
