"""Worker processes: calls are shared out over some new processes of this machine.

A worker is a new process, not a fork: it imports what its calls need, nothing else of the program
that started it, and dies with it. One that dies costs the call that it had and is replaced. That is
why this is no ProcessPoolExecutor, which the seeds of the simulator run in: there one dead process
ends everything, here every other trial still counts. And a call reports how far it is.

Rules of this file: bytes and processes; what a call does is its owner's business. Nothing is left
running, however a run ends.
"""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, Final, Generic, TypeAlias, TypeVar

from bench.spawn import spawn

_POLL_S: Final = 0.2
"""How often the owner is called while nothing is reported."""

_Value = TypeVar("_Value")
_Call: TypeAlias = Callable[[Callable[[Any], None]], _Value]
"""A picklable call. Its argument takes how much of the call is done, in terms of its owner."""


@dataclass(frozen=True)
class Died:
    """Why a call has no value: its worker ended."""

    exit_code: int | None


class WorkerPool(Generic[_Value]):
    """So many processes, each with one call at a time."""

    def __init__(self, count: int) -> None:
        self._count = count

    def run(
        self,
        calls: Sequence[_Call[_Value]],
        *,
        tell: Callable[[int, Any], None] = lambda number, done: None,
        beat: Callable[[], None] = lambda: None,
    ) -> Generator[tuple[int, _Value | Died], None, None]:
        """The number and the value of each call, as they end. Meanwhile `tell` gets how much of a
        call is done, by its number, and `beat` is called now and then; what either raises ends the
        run."""
        todo: SimpleQueue[tuple[int, _Call[_Value]]] = SimpleQueue()
        news: SimpleQueue[_News] = SimpleQueue()
        for each in enumerate(calls):
            todo.put(each)
        crew = [_Worker() for _ in range(min(self._count, len(calls)))]
        threads = [Thread(target=worker.serve, args=(todo, news), daemon=True) for worker in crew]
        try:
            for worker in crew:
                worker.start()
            for thread in threads:
                thread.start()
            left = len(calls)
            while left:
                beat()
                try:
                    number, ended, what = news.get(timeout=_POLL_S)
                except Empty:
                    continue
                if ended:
                    left -= 1
                    yield number, what
                else:
                    tell(number, what)
        finally:
            for worker in crew:
                worker.stop()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()


_News = tuple[int, bool, Any]
"""Number of a call, whether it has ended, and its value or how much of it is done."""


def cores() -> int:
    """The cores that this process may use, where the system says it; else those it has."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Worker:
    """One process, started again if it dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._lock = Lock()
        """So that none is started that nobody would end."""

    def start(self) -> None:
        """A new process that imports what ours could."""
        command = [sys.executable, "-c", "from bench.workers import main; main()"]
        self._process = spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with suppress(OSError):  # it died: the next call finds out
            self._send(sys.path)

    def stop(self) -> None:
        """End it at once, for good."""
        with self._lock:
            self._stopped = True
            self._end()

    def serve(
        self, todo: "SimpleQueue[tuple[int, _Call[Any]]]", news: "SimpleQueue[_News]"
    ) -> None:
        """In a thread: have it do one call after another, until there are no more."""
        while not self._stopped:
            try:
                number, call = todo.get_nowait()
            except Empty:
                return
            for ended, what in self._answers(call):
                news.put((number, ended, what))

    def _answers(self, call: _Call[Any]) -> Iterator[tuple[bool, Any]]:
        """What it says of a call; the last one ends it."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        ended = False
        try:
            self._send(call)
            while not ended:
                ended, what = pickle.load(process.stdout)
                yield ended, what
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            with self._lock:
                self._end()
                if not self._stopped:
                    self.start()
            yield True, Died(process.returncode)

    def _send(self, what: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        pickle.dump(what, self._process.stdin)
        self._process.stdin.flush()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            with suppress(OSError, ValueError):  # what it did not read any more
                self._process.communicate()


def main() -> None:
    """What a worker does: the places to import from, then calls in, reports and values out."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a call prints is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def say(ended: bool, what: object) -> None:
        pickle.dump((ended, what), answers)
        answers.flush()

    sys.path[:] = pickle.load(sys.stdin.buffer)
    while True:
        try:
            call = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        say(True, call(lambda done: say(False, done)))
