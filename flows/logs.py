"""Prefect's own log lines: where they go (to the run's log on the server, not to the terminal, which has ours), and
what they say of errors that a user can mend.
"""

import logging

from tasks.errors import InbetweenError


def keep_prefect_quiet() -> None:
    """Take Prefect's console lines away below CRITICAL; call after `import prefect`."""
    from prefect.logging.configuration import ensure_logging_setup

    ensure_logging_setup()
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.CRITICAL)


def shorten_known_errors() -> None:
    """From here on an error of ours is a line in the logs of this process's runs; any other keeps its traceback."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_shorten)  # a second time it changes nothing


def _shorten(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, InbetweenError):
        record.exc_info = None
        # A task's line quotes the error; the one of a flow, which has returned a failed state, calls it unexpected.
        if type(error).__name__ not in record.getMessage():
            record.msg, record.args = "%s", (str(error),)
    return True


def flush_reports() -> None:
    """Have the run's logs and states at the server before it, or this process, may be stopped."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=5, at_exit=False)
    EventsWorker.drain_all(timeout=5, at_exit=False)
