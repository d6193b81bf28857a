"""The comparison in virtual time: the same replicas' code and the same work, no machine in between.

One world (`epaxos.sim.world`) per protocol and leader; in it one trial per workload, as in
compare.py. What a world and its clients are stands in clusters/virtual.py.

Rules of this file: it runs and collects, like compare.py. The same options give the same samples,
however many processes share the work.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from bench.clusters.counters import Measured
from bench.compare.compare import ComparedCluster, ComparedTrial, ComparisonOptions
from bench.progress import ProgressClock, ProgressReport, Watch, ignore
from bench.trials.trial import Trial, measure_trial, virtual_cluster
from bench.workers import Died, WorkerPool
from epaxos.core.errors import EpaxosError

_Done = tuple[int, float]
"""Number of a cluster's trial, and how much of it is done, 0 to 1."""


def compare(
    options: ComparisonOptions,
    watch: Watch[ProgressReport] = ignore,
    workers: int = 1,
    directory: Path = Path(),
) -> list[ComparedTrial]:
    """Run everything, in so many processes; histories are kept in `directory`. Raises EpaxosError;
    whatever happens, no process is left."""
    clusters = options.clusters
    workers = min(workers, len(clusters))
    clock = ProgressClock(options.estimate_s, watch, at_once=workers)
    tell = partial(_tell, clock, clusters)
    if workers < 2:
        measured = {
            n: _measure(each, directory, partial(tell, n)) for n, each in enumerate(clusters)
        }
    else:
        measured = dict(_shared_out(clusters, directory, tell, workers))
    return [
        ComparedTrial(each, trial, found)
        for number, each in enumerate(clusters)
        for trial, found in zip(each.trials, measured[number])
    ]


def _tell(
    clock: ProgressClock, clusters: tuple[ComparedCluster, ...], number: int, done: _Done
) -> None:
    cluster, (at, share) = clusters[number], done
    trial = cluster.trials[at]
    clock.tell(cluster.label, trial.drawn.title, share, trial.load_s)
    if share == 1.0:
        clock.ended(cluster.label, trial.load_s)


def _shared_out(
    clusters: tuple[ComparedCluster, ...],
    directory: Path,
    tell: Callable[[int, _Done], None],
    workers: int,
) -> Iterator[tuple[int, list[Measured]]]:
    pool = WorkerPool[list[Measured] | EpaxosError](workers)
    calls = [partial(_measure_or_say_why, cluster, directory) for cluster in clusters]
    with closing(pool.run(calls, tell=tell)) as answers:
        for number, answer in answers:
            if isinstance(answer, Died):
                raise EpaxosError("a process of the simulation ended before its answer")
            if isinstance(answer, EpaxosError):
                raise answer
            yield number, answer


def _measure_or_say_why(
    compared: ComparedCluster, directory: Path, tell: Callable[[_Done], None]
) -> list[Measured] | EpaxosError:
    """In a worker: an error is an answer too."""
    try:
        return _measure(compared, directory, tell)
    except EpaxosError as error:
        return error


def _measure(
    compared: ComparedCluster, directory: Path, tell: Callable[[_Done], None]
) -> list[Measured]:
    tell((0, 0.0))
    place = directory / compared.name
    cluster = virtual_cluster(compared.trials[0])

    def measure(at: int, trial: Trial) -> Measured:
        return measure_trial(trial, cluster, place, lambda share: tell((at, share))).measured

    return [measure(at, trial) for at, trial in enumerate(compared.trials)]
