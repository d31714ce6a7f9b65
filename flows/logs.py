"""Where Prefect's own log lines go: to the run's log on the server, not to the terminal, which has ours."""

import logging


def keep_prefect_quiet() -> None:
    """Take Prefect's console lines away below CRITICAL; call after `import prefect`."""
    from prefect.logging.configuration import ensure_logging_setup

    ensure_logging_setup()
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.CRITICAL)
