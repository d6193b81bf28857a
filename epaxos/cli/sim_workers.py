"""Seeds over all cores: whole seeds are handed out, tallies come back.

Rules of this file: workers ignore Ctrl-C, SIGTERM and SIGHUP and end with their parent; whoever
interrupts gets what was found so far, and seeds that a bug of the simulator took along are named.
"""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from traceback import format_exception
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bench.spawn import INTERRUPTS
from bench.workers import cores
from epaxos.sim.soak import Profile, SoakTally, collect_rarely, run_seeds

CHUNK = 10
"""How many seeds a worker takes at a time."""
QUIET_S = 60.0
"""Where nobody watches a bar, a line is said so often."""
FAILURES_MAX = 5
"""After so many failing seeds no more are handed out."""


class Lost(NamedTuple):
    """Seeds of which nothing is known: the simulator itself failed, or its process was ended."""

    profile: Profile
    seeds: range
    error: str


class Soak:
    """Some seeds of some profiles."""

    def __init__(
        self, profiles: list[Profile], seeds: range, minutes: float | None, jobs: int | None
    ) -> None:
        self.profiles = profiles
        self.seeds = seeds
        self.minutes = minutes
        self.jobs = jobs or cores()
        self.tallies = [SoakTally(profile.protocol) for profile in profiles]
        self.lost: list[Lost] = []
        """After the first of them no more seeds are handed out."""
        self.elapsed_s = 0.0
        self.interrupted = False
        self._said_at = 0.0

    def title(self) -> str:
        """What is going to be run, in a line."""
        profile = self.profiles[0]
        names = " and ".join(profile.protocol for profile in self.profiles)
        how_many = f"seeds {self.seeds[0]} to {self.seeds[-1]}"
        if self.minutes is not None:
            how_many = f"seeds from {self.seeds[0]} on for {self.minutes:g} min"
        elif len(self.seeds) == 1:
            how_many = f"seed {self.seeds[0]}"
        kinds = "all" if profile.faults is None else ", ".join(sorted(profile.faults)) or "none"
        where = profile.topology or f"n in {','.join(map(str, profile.replicas))}, delays drawn"
        gate = "" if profile.gate else " · unsafe: no gate"
        jobs = "" if self._is_short() else f" · {self.jobs} process{'es'[: 2 * (self.jobs > 1)]}"
        return (
            f"{names} · {how_many} · {where} · {profile.commands} commands each · "
            f"workload {profile.workload} · faults: {kinds}{gate}{jobs}"
        )

    def _is_short(self) -> bool:
        """Whether so few seeds are run here, without processes of their own."""
        return self.minutes is None and len(self.seeds) * len(self.profiles) <= CHUNK

    def run(self, remarks: Console) -> list[SoakTally]:
        """Run them; returns a tally per profile."""
        begun = time.monotonic()
        if self._is_short():
            self._run_here(remarks)
        else:
            self._run_in_pool(remarks, begun)
        self.elapsed_s = time.monotonic() - begun
        return self.tallies

    def _chunks(self, begun: float) -> Iterator[tuple[int, range]]:
        """Profile and seeds, profiles in turn."""
        start = self.seeds[0]
        while self.minutes is not None or start <= self.seeds[-1]:
            if self.minutes is not None and time.monotonic() - begun >= self.minutes * 60:
                return
            stop = start + CHUNK
            if self.minutes is None:
                stop = min(stop, self.seeds[-1] + 1)
            for number in range(len(self.profiles)):
                yield number, range(start, stop)
            start = stop

    def _run_here(self, remarks: Console) -> None:
        try:
            for number, seeds in self._chunks(time.monotonic()):
                try:
                    self.tallies[number].merge(run_seeds(self.profiles[number], seeds))
                except Exception as error:
                    self._lose(remarks, number, seeds, error)
                if self._has_enough():
                    return
        except KeyboardInterrupt:
            self.interrupted = True

    def _run_in_pool(self, remarks: Console, begun: float) -> None:
        chunks = self._chunks(begun)
        pool = ProcessPoolExecutor(self.jobs, initializer=_prepare)
        with _progress(remarks) as progress:
            total = len(self.seeds) * len(self.profiles) if self.minutes is None else None
            task = progress.add_task("seeds", total=total or (self.minutes and self.minutes * 60))
            open_: dict[Future[SoakTally], tuple[int, range]] = {}
            try:
                while self._hand_out(remarks, pool, chunks, open_):
                    done, _ = wait(open_, return_when=FIRST_COMPLETED)
                    for future in done:
                        self._collect(remarks, future, *open_.pop(future))
                    self._show(progress, task, begun)
            except KeyboardInterrupt:
                self.interrupted = True
            finally:
                workers = list((pool._processes or {}).values())
                pool.shutdown(wait=not self.interrupted, cancel_futures=True)
                if self.interrupted:
                    for worker in workers:
                        worker.kill()

    def _hand_out(
        self,
        remarks: Console,
        pool: ProcessPoolExecutor,
        chunks: Iterator[tuple[int, range]],
        open_: dict[Future[SoakTally], tuple[int, range]],
    ) -> bool:
        """Keep the workers busy; whether anything is under way."""
        while len(open_) < 2 * self.jobs and not self._has_enough():
            chunk = next(chunks, None)
            if chunk is None:
                break
            number, seeds = chunk
            try:
                open_[pool.submit(run_seeds, self.profiles[number], seeds)] = chunk
            except BrokenProcessPool as error:
                self._lose(remarks, number, seeds, error)
        return bool(open_)

    def _collect(
        self, remarks: Console, future: Future[SoakTally], number: int, seeds: range
    ) -> None:
        try:
            tally = future.result()
        except Exception as error:
            self._lose(remarks, number, seeds, error)
        else:
            self.tallies[number].merge(tally)
            self._announce(remarks, tally)

    def _lose(self, remarks: Console, number: int, seeds: range, error: Exception) -> None:
        """These seeds are not counted. Where it went wrong is told once: a worker that ends takes
        all that is under way with it."""
        if not self.lost:
            story = "".join(format_exception(error))
            remarks.print(story, soft_wrap=True, end="")
        what = f"{type(error).__name__}: {error}"
        self.lost.append(Lost(self.profiles[number], seeds, " ".join(what.split())))

    def _announce(self, remarks: Console, tally: SoakTally) -> None:
        """A failure is said when it is found, not at the end."""
        for failure in tally.failures:
            remarks.print(
                f"{failure.options.protocol}, seed {failure.options.seed}: {failure.property}",
                soft_wrap=True,
            )

    def _show(self, progress: Progress, task: TaskID, begun: float) -> None:
        clean = sum(tally.clean for tally in self.tallies)
        failed = sum(len(tally.failures) for tally in self.tallies)
        elapsed = time.monotonic() - begun
        line = f"{clean:,} clean, {failed} failed, {60 * clean / elapsed:,.0f} per minute"
        done = clean + failed if self.minutes is None else elapsed
        progress.update(task, completed=done, description=line)
        if progress.disable and elapsed - self._said_at >= QUIET_S:
            self._said_at = elapsed
            progress.console.print(line)

    def _has_enough(self) -> bool:
        failures = sum(len(tally.failures) for tally in self.tallies)
        return bool(self.lost) or failures >= FAILURES_MAX


def _prepare() -> None:
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    collect_rarely()


def _progress(remarks: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeRemainingColumn(),
        console=remarks,
        disable=not remarks.is_terminal,
    )
