"""Who runs trials: this process, a few processes of this machine, or a Dask cluster.

An executor gets jobs and gives back, as they end, the bytes that the store keeps: packing a trial's
samples is then shared out like running it. Real processes run here, one trial after another, since
two at a time would measure each other; only simulated trials are shared out.

Rules of this file: a trial that fails is an answer; nothing is left running, however a run ends.
"""

import platform
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol

from bench.analysis.optimum import optimum
from bench.trials.store import StoredTrial, code_version, encode
from bench.trials.trial import Trial, run_trial
from bench.workers import Died, WorkerPool
from epaxos.core.errors import AddressError, ConfigError, EpaxosError

_POLL_S: Final = 0.2
"""How often somebody is told that nothing has ended yet."""
_DASK_CONNECTS_WITHIN_S: Final = 10

Beat = Callable[[float], None]
"""Called now and then while trials run, with how much of the present one is done (0 to 1; 0 where
several run). What it raises ends the run."""


class Stopped(BaseException):
    """Raised by a beat when somebody wants a run to end; like Ctrl-C, it is no failure of a
    trial."""


@dataclass(frozen=True)
class Job:
    """A trial to be run."""

    number: int
    """Among those of a sweep."""
    settings: dict[str, Any]
    """The fields of Trial."""
    key: str
    code: str
    """`code_version` that its key was made with."""
    directory: str
    """Where real replicas keep their files."""


@dataclass(frozen=True)
class Failed:
    """Why a trial has no outcome."""

    sentence: str


Answer = tuple[Job, bytes | Failed]


class TrialExecutor(Protocol):
    """Runs simulated trials, in any order."""

    def title(self) -> str:
        """Who works, for people."""

    def run(self, jobs: Sequence[Job], beat: Beat) -> Iterator[Answer]:
        """An answer per job, as they end. Raises AddressError."""


def choose(processes: int, dask: str) -> TrialExecutor:
    """Who runs simulated trials. Raises ConfigError."""
    if dask:
        return DaskCluster(dask)
    if processes < 1:
        raise ConfigError(f"jobs = {processes} must be 1 or more")
    return Here() if processes == 1 else Processes(processes)


def perform(job: Job, beat: Beat = lambda share: None) -> bytes | Failed:
    """Run a trial; what the store keeps of it, or why there is nothing."""
    here = code_version()
    if here != job.code:
        return Failed(
            f"{platform.node()} runs other code ({here}) than what began the sweep ({job.code}): "
            "bring both to one version, or run it again if you changed a file meanwhile"
        )
    begun = time.monotonic()
    try:
        trial = Trial(**job.settings)
        outcome = run_trial(trial, Path(job.directory), beat)
    except EpaxosError as error:
        return Failed(str(error))
    except Exception as error:
        # A bug, perhaps in a protocol that is being tried out: the other trials still count.
        traceback.print_exc()
        return Failed(f"a bug, with its traceback on stderr: {type(error).__name__}: {error}")
    leader, sites = trial.leader_index, trial.sites
    regions = {region.name: region.title for region in sites.regions}
    return encode(
        StoredTrial(
            key=job.key,
            trial=asdict(trial),
            leader=None if leader is None else sites.regions[leader].name,
            titles=regions | {home.region.name: home.region.title for home in trial.homes},
            optimum=[
                optimum(trial.protocol, sites, leader, outcome.sync_us, home.replica, hop_us)
                for home, hop_us in zip(trial.homes, outcome.load.hop_us)
            ],
            code=job.code,
            finished=datetime.now().astimezone().isoformat(timespec="seconds"),
            took_s=time.monotonic() - begun,
            host=platform.node(),
            outcome=outcome,
        )
    )


class Here:
    """Our own process, one trial after another."""

    def title(self) -> str:
        return "one process"

    def run(self, jobs: Sequence[Job], beat: Beat) -> Iterator[Answer]:
        for job in jobs:
            beat(0.0)
            yield job, perform(job, beat)


class Processes:
    """So many processes of this machine, each with one trial at a time."""

    def __init__(self, count: int) -> None:
        self._count = count

    def title(self) -> str:
        return f"{self._count} processes"

    def run(self, jobs: Sequence[Job], beat: Beat) -> Iterator[Answer]:
        if len(jobs) == 1:  # not worth a process
            yield from Here().run(jobs, beat)
            return
        pool = WorkerPool[bytes | Failed](self._count)
        calls = [partial(perform, job) for job in jobs]
        for number, answer in pool.run(calls, beat=partial(beat, 0.0)):
            if isinstance(answer, Died):
                why = f"its process ended before its answer (exit code {answer.exit_code})"
                answer = Failed(why)
            yield jobs[number], answer


class DaskCluster:
    """The workers of a scheduler; each needs the same version of this package."""

    def __init__(self, address: str) -> None:
        self._address = address

    def title(self) -> str:
        return f"the Dask cluster at {self._address}"

    def run(self, jobs: Sequence[Job], beat: Beat) -> Iterator[Answer]:
        try:
            distributed: Any = import_module("distributed")  # it is hardly typed
        except ImportError:
            raise ConfigError(
                "Dask is not installed here; install epaxos with its extra: epaxos[dask]"
            ) from None
        done: SimpleQueue[Any] = SimpleQueue()
        try:
            client = distributed.Client(
                self._address, timeout=_DASK_CONNECTS_WITHIN_S, set_as_default=False
            )
        except (OSError, ValueError) as error:
            raise AddressError(
                f"no Dask scheduler answers at {self._address}: {error or 'nothing came'}; "
                "start one with dask scheduler, and workers with dask worker"
            ) from None
        with client:
            # Not pure: a trial that failed must not be answered from the scheduler's memory.
            futures = client.map(perform, jobs, pure=False)
            of = {future.key: job for future, job in zip(futures, jobs)}
            for future in futures:
                future.add_done_callback(done.put)
            try:
                for _ in jobs:
                    future = _next(done, beat)
                    yield of[future.key], _answer_of(future)
            finally:
                client.cancel(futures)


def _next(done: "SimpleQueue[Any]", beat: Beat) -> Any:
    """The next future that is done; looks up now and then."""
    while True:
        beat(0.0)
        with suppress(Empty):
            return done.get(timeout=_POLL_S)


def _answer_of(future: Any) -> bytes | Failed:
    """What became of a job on a cluster."""
    try:
        answer: bytes | Failed = future.result()
    except Exception as error:
        # Whatever happened to a worker far away, it is this trial that has no outcome.
        return Failed(f"{type(error).__name__}: {error}")
    return answer
