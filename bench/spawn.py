"""Child processes that end when we do, see only what they are given, and cost no Ctrl-C.

A child runs in a session of its own: Ctrl-C reaches only us. Python runs hooks around a fork, and
swallows a KeyboardInterrupt that falls into one of them; so while a child is being started, an
interrupt is kept and raised afterwards.

Settings of replicas (EPAXOS_*) in our environment are for `epaxos serve` alone: a cluster of ours
has those of its file, or the report would state what was not measured.
A child imports what we are, never what the current directory happens to hold: a `topology.py` there
is no part of ours. Parts from outside are found in it all the same, last (`epaxos.extensions`).
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final

_PR_SET_PDEATHSIG: Final = 1
INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends us: in a verb each means what Ctrl-C means (`epaxos.cli.main`)."""
_ROOT: Final = Path(__file__).resolve().parents[1]
_libc: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

_Handler = Callable[[int, FrameType | None], object] | signal.Handlers
Stream = int | IO[Any] | None
"""What `subprocess` takes for a stream."""


def spawn(
    command: Sequence[str],
    *,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.DEVNULL,
    stderr: Stream = None,
) -> "subprocess.Popen[bytes]":
    """Start a child. Raises KeyboardInterrupt, and leaves none, if Ctrl-C comes meanwhile, or
    another signal that means the same."""
    interrupts: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)

    with _handled(keep):
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=_environment(),
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    if interrupts:
        process.kill()
        process.communicate()
        signal.raise_signal(interrupts[0])
    return process


@contextmanager
def unhurried() -> Iterator[None]:
    """Meanwhile nothing that ends us is heard: what is being stopped has a limit of its own, and a
    second Ctrl-C must leave nothing behind."""
    with _handled(signal.SIG_IGN):
        yield


@contextmanager
def _handled(handler: _Handler) -> Iterator[None]:
    """Meanwhile all signals that end us go to a handler, if we are the main thread, which alone
    hears them. Those that are ignored already stay so."""
    numbers: list[signal.Signals] = []
    if threading.current_thread() is threading.main_thread():
        numbers = [each for each in INTERRUPTS if signal.getsignal(each) != signal.SIG_IGN]
    before = {each: signal.signal(each, handler) for each in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _environment() -> dict[str, str]:
    """Ours, without the settings of replicas, and with our modules before those of others."""
    given = {key: value for key, value in os.environ.items() if not key.startswith("EPAXOS_")}
    # An empty entry would be the current directory.
    places = [each for each in given.pop("PYTHONPATH", "").split(os.pathsep) if each]
    if _ROOT.name not in ("site-packages", "dist-packages"):
        places.insert(0, str(_ROOT))  # a checkout, perhaps not installed
    if places:
        given["PYTHONPATH"] = os.pathsep.join(places)
    return {**given, "PYTHONSAFEPATH": "1"}


def _die_with_parent() -> None:
    """In the child, before its program: SIGTERM when its parent ends, where the kernel can."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
