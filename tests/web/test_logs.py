"""No request and no reply gets through to a handler."""

from __future__ import annotations

import io
import logging

import pytest

from medsegr.web.logs import QuestionFilter, protect_logs


@pytest.mark.parametrize(
    "message",
    [
        "Infer Request: {'model': 'medsegr', 'question': 'SECRET'}",
        'COMMAND:: python -r {"model":"m","question":"SECRET"}',
        'Save Label params: {"label_info": "SECRET"}',
        'Result: {"params": {"answer": "SECRET"}}',
        "Next sample: {'id': '1.2', 'PatientID': 'SECRET'}",
        "Image: x; File: f; params: {'name': 'SECRET'}",
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


def test_an_exception_behind_an_exception_is_cut_too() -> None:
    try:
        try:
            raise KeyError("{'question': 'SECRET'}")
        except KeyError as error:
            raise ValueError("harmless") from error
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "It failed", (), info)
    assert QuestionFilter().filter(record)
    assert "SECRET" not in logging.Formatter().format(record)


def test_access_logs_have_no_query_strings() -> None:
    """Where a client may have put a question, or an image that is named after a patient."""
    arguments = ("127.0.0.1:5", "POST", "/infer/medsegr?image=DOE^JANE&question=SECRET", "1.1", 200)
    line = '%s - "%s %s HTTP/%s" %d'
    record = logging.LogRecord("uvicorn.access", logging.INFO, "f", 1, line, arguments, None)
    assert QuestionFilter().filter(record)
    assert record.getMessage() == '127.0.0.1:5 - "POST /infer/medsegr HTTP/1.1" 200'


def test_uids_are_cut_from_the_paths_of_access_logs() -> None:
    path = "/proxy/dicom/wado/studies/1.2.840.113619.2/series/2.25.1234.5/metadata?PatientName=SECRET"
    record = logging.LogRecord(
        "uvicorn.access",
        logging.INFO,
        "",
        0,
        '%s - "%s %s HTTP/%s" %d',
        ("10.1.2.3:4", "GET", path, "1.1", 200),
        None,
    )
    QuestionFilter().filter(record)
    shown = '10.1.2.3:4 - "GET /proxy/dicom/wado/studies/(uid)/series/(uid)/metadata HTTP/1.1" 200'
    assert record.getMessage() == shown


def test_urls_of_a_pacs_and_values_of_dicom_files_are_not_logged() -> None:
    protect_logs()
    for name in ("httpx", "pydicom", "dicomweb_client"):
        assert not logging.getLogger(name).isEnabledFor(logging.INFO)
