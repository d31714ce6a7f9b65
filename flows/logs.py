"""Where Prefect's own log lines go: to the run's log on the server, not to the terminal, which has ours."""

import logging


def keep_prefect_quiet() -> None:
    """Take Prefect's console lines away below CRITICAL; call after `import prefect`."""
    from prefect.logging.configuration import ensure_logging_setup

    ensure_logging_setup()
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.CRITICAL)


def flush_reports() -> None:
    """Have the run's logs and states at the server before it, or this process, may be stopped."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=5, at_exit=False)
    EventsWorker.drain_all(timeout=5, at_exit=False)
