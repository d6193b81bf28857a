"""Logs: one event per line to stderr, for people on a terminal, as JSON elsewhere.

An event that repeats faster than `LINES_PER_SECOND` is suppressed and counted: what strangers send
must not fill a disk. No keys and no values are logged.
"""

import os
import sys
import time
from typing import Any, Final

import structlog
from structlog.typing import EventDict

LINES_PER_SECOND: Final = 10
"""Per kind of event."""
_INFO: Final = 20


class RateLimit:
    """A structlog processor that drops what comes too often, and says later how much it was."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}

    def __call__(self, logger: Any, method: str, event: EventDict) -> EventDict:
        second = int(time.monotonic())
        name = str(event.get("event"))
        since, count = self._seen.get(name, (second, 0))
        if since == second and count >= LINES_PER_SECOND:
            self._seen[name] = (since, count + 1)
            raise structlog.DropEvent
        if since != second:
            if count > LINES_PER_SECOND:
                event["suppressed"] = count - LINES_PER_SECOND
            count = 0
        self._seen[name] = (second, count + 1)
        return event


def configure_logging() -> None:
    """Set up structlog for a replica's process."""
    renderer: Any = structlog.processors.JSONRenderer()
    if sys.stderr.isatty():
        renderer = structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ)
    structlog.configure(
        processors=[
            RateLimit(),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
