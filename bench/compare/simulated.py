"""The comparison in virtual time: the same replicas' code and the same work, no machine in between.

One world (`epaxos.sim.world`) per protocol and leader; in it one phase per workload, as in
compare.py. What a world and its clients are stands in virtual.py.

Rules of this file: it runs and collects, like compare.py. The same options give the same samples,
however many processes share the work.
"""

import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from queue import SimpleQueue

from bench.clusters.virtual import VirtualCluster, VirtualLoad, measure_virtual
from bench.compare.compare import Options, Phase, Run
from bench.progress import ProgressClock, ProgressReport, Watch, ignore
from bench.spawn import spawn
from epaxos.core.errors import EpaxosError
from epaxos.workload import Workload

Tell = Callable[[int, float], None]
"""Where a run stands: the number of the workload, and how much of its phase is done."""


def compare(
    options: Options, watch: Watch[ProgressReport] = ignore, workers: int = 1
) -> list[Phase]:
    """Run everything, in so many processes. Raises EpaxosError; whatever happens, none is left."""
    runs = options.runs()
    clock = _Clock(options, runs, watch)
    workers = min(workers, len(runs))
    if workers < 2:
        return [phase for run in runs for phase in _run(options, run, partial(clock.tell, run))]
    phases: list[Phase] = []
    with _Workers(options, workers, clock) as ask, ThreadPoolExecutor(workers) as threads:
        try:
            for found in threads.map(ask, runs):
                phases += found
        except BaseException:
            ask.stop()  # else the threads would wait for them
            raise
    return phases


class _Clock:
    """Reports each run by its label; phases count alike."""

    def __init__(self, options: Options, runs: list[Run], watch: Watch[ProgressReport]) -> None:
        self._options = options
        self._titles = [workload.title for workload in options.workloads()]
        self._clock = ProgressClock(float(len(self._titles) * len(runs)), watch)

    def tell(self, run: Run, number: int, share: float) -> None:
        """`share` of a phase is done, and the phases before it."""
        what = run.label(self._options.topology)
        self._clock.tell(what, self._titles[number], share, 1.0)
        if share == 1.0:
            self._clock.ended(what, 1.0)


def _run(options: Options, run: Run, tell: Tell) -> list[Phase]:
    cluster = VirtualCluster(
        options.topology,
        protocol=run.protocol,
        leader=run.leader,
        durability=options.durability,
        sync_ms=options.sync_ms,
        jitter=options.jitter,
        gate=options.gate,
        seed=options.seed,
    )
    tell(0, 0.0)
    cluster.start()
    return [
        _phase(options, run, workload, cluster, partial(tell, number))
        for number, workload in enumerate(options.workloads())
    ]


def _phase(
    options: Options,
    run: Run,
    workload: Workload,
    cluster: VirtualCluster,
    tell: Callable[[float], None],
) -> Phase:
    load = VirtualLoad(cluster, options.homes, options.demand(workload))
    return Phase(run, workload, measure_virtual(cluster, load, tell))


# Several processes -----------------------------------------------------------------------------

_Said = tuple[int, float] | list[Phase] | EpaxosError
"""What a worker says of a run: where it stands, and in the end what it gave."""


class _Workers:
    """Processes of this module, each of which works on one run at a time."""

    def __init__(self, options: Options, count: int, clock: _Clock) -> None:
        self._options = options
        self._count = count
        self._clock = clock
        self._all: list[subprocess.Popen[bytes]] = []
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()

    def __call__(self, run: Run) -> list[Phase]:
        """Have an idle one do it. Raises EpaxosError."""
        worker = self._idle.get()
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            pickle.dump((self._options, run), worker.stdin)
            worker.stdin.flush()
            said: _Said = pickle.load(worker.stdout)
            while isinstance(said, tuple):
                self._clock.tell(run, *said)
                said = pickle.load(worker.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise EpaxosError("a process of the simulation ended before its answer") from None
        finally:
            self._idle.put(worker)
        if isinstance(said, EpaxosError):
            raise said
        return said

    def stop(self) -> None:
        """End them at once."""
        for worker in self._all:
            worker.kill()

    def __enter__(self) -> "_Workers":
        command = [sys.executable, "-m", "bench.compare.simulated"]
        try:
            for _ in range(self._count):
                worker = spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                self._all.append(worker)
                self._idle.put(worker)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for worker in self._all:
            with suppress(OSError):  # what it did not read any more
                worker.communicate()


def main() -> None:
    """What a worker does: a pickled run in, what is said of it out, until there are no more."""

    def say(said: _Said) -> None:
        pickle.dump(said, sys.stdout.buffer)
        sys.stdout.buffer.flush()

    while True:
        try:
            options, run = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            say(_run(options, run, lambda number, share: say((number, share))))
        except EpaxosError as error:
            say(error)


if __name__ == "__main__":
    main()
