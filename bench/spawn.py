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
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final

_PR_SET_PDEATHSIG: Final = 1
_ROOT: Final = Path(__file__).resolve().parents[1]
_libc: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

Stream = int | IO[Any] | None
"""What `subprocess` takes for a stream."""


def spawn(
    command: Sequence[str],
    *,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.DEVNULL,
    stderr: Stream = None,
) -> "subprocess.Popen[bytes]":
    """Start a child. Raises KeyboardInterrupt, and leaves none, if Ctrl-C comes meanwhile."""
    interrupts: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, keep) if in_main else None
    try:
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=_environment(),
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)
    if interrupts:
        process.kill()
        process.communicate()
        signal.raise_signal(signal.SIGINT)
    return process


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
