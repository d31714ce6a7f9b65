"""Errors in the logs of Prefect runs: a line for those that a user can mend, the traceback for all others."""

import logging
from io import StringIO

import pytest

from flows.logs import shorten_known_errors
from tasks.errors import InbetweenError, ParamsError


@pytest.fixture
def said(monkeypatch):
    """What the two loggers by which Prefect's engines write say, from here on."""
    text = StringIO()
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "handlers", [logging.StreamHandler(text)])
        monkeypatch.setattr(logger, "filters", [])
        monkeypatch.setattr(logger, "propagate", False)
    shorten_known_errors()
    shorten_known_errors()
    return text


def log(name: str, message: str, error: Exception) -> None:
    try:
        raise error
    except Exception:
        logging.getLogger(name).error(message, exc_info=True)  # noqa: G201 as Prefect's engines do


def test_known_error_of_a_flow_is_its_line(said):
    log("prefect.flow_runs", "Engine execution exited with unexpected exception", ParamsError("run.workers: 100 % bad"))
    assert said.getvalue() == "run.workers: 100 % bad\n"


def test_known_error_of_a_task_is_the_line_that_quotes_it(said):
    error = InbetweenError("the store is away")
    log("prefect.task_runs", f"Task run failed with exception: {error!r} - Retries are exhausted", error)
    assert said.getvalue() == (
        "Task run failed with exception: InbetweenError('the store is away') - Retries are exhausted\n"
    )


@pytest.mark.parametrize("name", ["prefect.flow_runs", "prefect.task_runs"])
def test_unknown_error_keeps_its_traceback(said, name):
    log(name, "Engine execution exited with unexpected exception", KeyError("joints"))
    first, *traceback, last = said.getvalue().splitlines()
    assert first == "Engine execution exited with unexpected exception"
    assert traceback[0] == "Traceback (most recent call last):"
    assert last == "KeyError: 'joints'"
