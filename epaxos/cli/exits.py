"""What the exit code of `epaxos` says. Scripts rely on it; a number never changes its meaning.

Each verb's results go to stdout, everything else to stderr; an error is one line, `error: ...`.
"""

import errno
from enum import IntEnum
from typing import Final

from epaxos.core.errors import AddressError, ConfigError, EpaxosError, StorageError


class ExitCode(IntEnum):
    """How a process ended. A verb raises an exception or `typer.Exit(ExitCode.FAILED)`."""

    OK = 0
    """Everything asked for was done."""
    FAILED = 1
    """It was tried and did not succeed: key not found, conflict, outcome unknown, comparison
    invalid."""
    CONFIG = 2
    """Asked wrongly: usage, a setting, a file with settings, a topology."""
    STORAGE = 3
    """The disk failed, or a data directory is damaged, foreign or in use."""
    ADDRESS = 4
    """An address cannot be listened on or reached."""
    INTERNAL = 70
    """A bug of ours, with a traceback on stderr."""
    INTERRUPTED = 130
    """Ctrl-C."""


_ADDRESS_ERRNOS: Final = frozenset(
    {
        errno.EADDRINUSE,
        errno.EADDRNOTAVAIL,
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
    }
)


def exit_code(error: Exception) -> ExitCode:
    """The code for an exception that ends the process."""
    if isinstance(error, ConfigError):
        return ExitCode.CONFIG
    if isinstance(error, StorageError):
        return ExitCode.STORAGE
    if isinstance(error, AddressError):
        return ExitCode.ADDRESS
    if isinstance(error, EpaxosError):
        return ExitCode.FAILED
    if isinstance(error, OSError):
        return ExitCode.ADDRESS if error.errno in _ADDRESS_ERRNOS else ExitCode.FAILED
    # Here, since every start-up would pay for what only this moment needs.
    from topology import TopologyError

    return ExitCode.CONFIG if isinstance(error, TopologyError) else ExitCode.INTERNAL
