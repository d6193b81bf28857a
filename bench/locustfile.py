"""Load a cluster with Locust: one user class per region, statistics per region.

    epaxos up                                                                  # in one terminal
    locust -f bench/locustfile.py --headless -t 30s --rate 50 --conflict-rate 2    # in another

Every region of the topology gets a user class whose host is that region's replica, or the nearest
one. Region and operation stand in the name of each request, so Locust's tables, CSV files and web
page show them apart; protocol, path and region stand in its `context`. Percentiles are those of
everything else here (epaxos.percentile), of three digits, where Locust itself would round 141 ms to
140 and take the upper one of two in the middle.

With --rate the load is open: commands are sent at Poisson moments, whether those before have
returned or not, and latency counts from the intended moment. Without it users wait for their answer
and send again (closed loop), and the load falls where a region is slow. `-T open` and `-T closed`
say it in words. Locust's own tables hold every command; what this file prints after them, and
writes with --results, leaves the warm-up out and splits answers into commit and execution. How to
run it with the web page, over several processes or machines, or against etcd: docs/load.md.

Rules of this file: Locust patches sockets when it is imported, so nothing else imports this module.
Commands are sent and counted in generator.py; here is what Locust must be told and asked.
"""

import builtins
import logging
import os
import sys
from typing import Any

if os.getcwd() in sys.path:  # Locust puts it first: a `topology.py` there would be taken for ours
    sys.path.remove(os.getcwd())
    sys.path.append("")

from locust import FastHttpUser, LoadTestShape, constant, events, runners, stats, tag, task
from locust.argument_parser import get_parser
from locust.env import Environment

from bench.loadtest.options import HTTP_PORT, TARGETS
from bench.loadtest.session import LoadSession, check, make_places
from epaxos.core.errors import EpaxosError
from epaxos.percentile import bucket, midpoint, weighted
from topology import DEFAULT, TopologyError

log = logging.getLogger("epaxos")


def three_digits(milliseconds: float) -> float:
    """What Locust keeps of a response time: the midpoint of its bucket."""
    return midpoint(bucket(max(0, round(milliseconds * 1000)))) / 1000


def response_time_percentile(times: dict[float, int], requests: int, share: float) -> float:
    """What Locust states of those: 0 where there are none. It counts the requests once more."""
    return next(weighted(times, (round(share * 100, 6),)), 0)


def percentile_fields(self: Any, entry: Any, use_current: bool = False) -> list[Any]:
    """What Locust writes into its CSV files, where it would cut milliseconds to whole ones."""
    if not entry.num_requests:
        return list(self.percentiles_na)
    ask = entry.get_response_time_percentile
    if use_current and entry.use_response_times_cache:
        ask = entry.get_current_response_time_percentile
    return [ask(share) or 0 for share in self.percentiles_to_report]


stats.bucket_response_time = three_digits  # type: ignore[assignment] # made to be replaced
stats.calculate_response_time_percentile = response_time_percentile  # type: ignore[assignment]
stats.StatsCSV._percentile_fields = percentile_fields  # type: ignore[assignment,method-assign]
runners.WORKER_REPORT_INTERVAL = 1.0


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator] # Locust's
def add_options(parser: Any) -> None:
    """Our own options. They show in the web page too: those of an argument group would not."""
    add = parser.add_argument
    add("--topology", default=DEFAULT, help="Whose regions have users; a name or a file.")
    add("--replicas", type=int, default=0, help="Replicas in only so many of its regions.")
    add("--clients", default="", help="Regions with users; one without a replica asks the nearest.")
    add("--at", default="", help="URLs of the replicas, in order; or one for all.")
    add("--http-port", type=int, default=HTTP_PORT, help="Without --at: port of the first replica.")
    add("--target", default=TARGETS[0], choices=TARGETS, help="What answers at these URLs.")
    add("--workload", default="", help="Like ycsb-a or zipf:theta=0.9,keys=1000000.")
    add("--conflict-rate", default="", help="Instead: per cent of commands on a shared key.")
    add("--keys", type=int, default=0, help="Keys of the workload; its shared ones with conflicts.")
    add("--value-size", type=int, default=0, help="Bytes per value; 0: as the workload says.")
    add("--rate", type=float, default=0.0, help="Commands/s and region, open loop; 0: closed.")
    add("--users-per-region", type=int, default=0, help="Sets fixed_count; 0: spread -u evenly.")
    add("--warmup", default="1s", help="From the start, and each step, until answers count.")
    add("--steps", default="", help="Like 50,100,200: users per region, or rates with -T open.")
    add("--step-time", default="20s", help="How long each step takes.")
    add("--patience", default="10s", help="How long a user waits for an answer.")
    add("--seed", type=int, default=1, help="Of commands and arrivals.")
    add("--results", default="", help="Directory for load.json, steps.csv and HDR histograms.")
    add("--history", default="", help="Directory where each process keeps its calls; one machine.")
    add("--history-initial", default="other", help="What keys held before: absent, or other.")
    add("--max-p99", default="", help="Else exit with 1: MS, or Region=MS, by commas.")
    add("--max-fail-ratio", default="0", help="Else exit with 1: share of failed commands.")
    add("--min-rate", default="", help="Else exit with 1: good answers/s of a region.")


class RegionUser(FastHttpUser):
    """What users of all regions do; each region's class says where. `client` is Locust's own, for
    tasks of your own; commands go over the connections of generator.py."""

    abstract = True
    wait_time = constant(0)

    def on_start(self) -> None:
        """Each user has commands and arrivals of its own, from its number."""
        self.session: LoadSession = self.environment.epaxos
        self.user_state = self.session.user_state(type(self).__name__)

    @tag("open")
    @task
    def open_loop(self) -> None:
        """Commands at Poisson moments, until the run ends."""
        self.session.drive(self.user_state, type(self).__name__)

    @tag("closed")
    @task
    def closed_loop(self) -> None:
        self.session.drive(self.user_state, type(self).__name__)


class _Steps(LoadTestShape):
    """Steps of load, one after the other; only there with --steps."""

    abstract = True
    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Users and spawn rate of this moment; None: the run is over."""
        runner: Any = self.runner
        session: LoadSession = runner.environment.epaxos
        return session.tick()


def _options() -> Any:
    """All options. User classes must exist when this file has been read, before Locust reads its
    command line."""
    return get_parser().parse_known_args()[0]


try:
    _given = _options()
    _places = make_places(_given)
    check(_given, _places)
    # Locust finds classes by looking at what stands here. A region that is called like something
    # that stands here already, or like a builtin, must not take its place: no name has a blank.
    _taken = {*globals(), *dir(builtins)}
    for _place in _places:
        _key = _place.class_name
        globals()[f"{_key} users" if _key in _taken else _key] = type(
            _place.class_name,
            (RegionUser,),
            {"host": _place.url, "fixed_count": _given.users_per_region},
        )
    if _given.steps:
        # Locust takes the steps for a load shape as soon as such a class is here; its key, too, is
        # none that a region or a variable can have.
        globals()["load shape"] = type("Steps", (_Steps,), {})
except (TopologyError, EpaxosError) as error:
    sys.exit(f"error: {error}")


@events.init.add_listener  # type: ignore[untyped-decorator] # Locust's
def start_session(environment: Environment, **_: Any) -> None:
    """Coordination of all runs of this process; there is one per process."""
    try:
        environment.epaxos = LoadSession(environment, _places)  # type: ignore[attr-defined] # ours
    except (TopologyError, EpaxosError) as error:
        sys.exit(f"error: {error}")
