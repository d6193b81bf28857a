"""Load an `epaxos up` cluster with Locust: one user class per region, statistics per region.

    epaxos up                                                       # in one terminal
    locust -f bench/locustfile.py --headless -u 50 -r 50 -t 30s     # in another

Every region of the topology gets a FastHttpUser class whose host is that region's replica; users
are spread evenly over the regions. Region and operation stand in the name of each request, so
Locust's
tables, CSV files and web page show them apart. Percentiles keep three digits, where Locust itself
would round 141 ms to 140.

With --rate the load is open: each user sends at Poisson moments, whether the request before has
returned or not, and latency counts from the intended moment. Without it users wait for their answer
and send again (closed loop), and the load falls where a region is slow.

Rules of this file: Locust patches sockets when it is imported, so nothing else imports this module.
"""

import random
import sys
import time
from itertools import count
from typing import Any
from urllib.parse import quote_from_bytes

import gevent
from locust import FastHttpUser, constant, events, stats, task
from locust.env import Environment
from locust.exception import StopUser

from bench.workload import Conflict
from topology import DEFAULT, Topology, TopologyError, find

HTTP_PORT = 8001
"""Replica A of `epaxos up`; the others follow."""


def three_digits(milliseconds: float) -> float:
    """What Locust keeps of a response time: three digits, at least tenths of a millisecond."""
    if milliseconds < 100:
        return round(milliseconds, 1)
    return round(milliseconds) if milliseconds < 1000 else round(milliseconds, -1)


stats.bucket_response_time = three_digits  # type: ignore[assignment] # made to be replaced


def _argument(name: str, default: str) -> str:
    """The value of one of our options, needed before Locust has parsed them: user classes must
    exist when this file is read."""
    for position, word in enumerate(sys.argv):
        if word == name and position + 1 < len(sys.argv):
            return sys.argv[position + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return default


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator] # Locust's
def add_options(parser: Any) -> None:
    """Our own options; they show in the web page too."""
    group = parser.add_argument_group("epaxos")
    group.add_argument("--topology", default=DEFAULT, help="Topology that `epaxos up` runs.")
    group.add_argument(
        "--conflict-rate", type=float, default=0.0, help="Per cent of commands on the shared key."
    )
    group.add_argument(
        "--rate",
        type=float,
        default=0.0,
        help="Commands per second and region, open loop; 0: closed loop.",
    )
    group.add_argument("--value-size", type=int, default=16, help="Bytes per value.")
    group.add_argument(
        "--http-port", type=int, default=HTTP_PORT, help="HTTP port of the first replica."
    )


class Region(FastHttpUser):
    """What users of all regions do; each region's class says where."""

    abstract = True
    region = ""
    wait_time = constant(0)
    numbers = count(1)

    def on_start(self) -> None:
        """Each user has commands and arrivals of its own, from its number."""
        options = self.environment.parsed_options
        number = next(self.numbers)
        workload = Conflict(options.conflict_rate, value_size=options.value_size, seed=number)
        self.commands = workload.commands(f"{self.region}-{number}")
        users = max(1, self.environment.runner.user_classes_count.get(type(self).__name__, 1))
        self.rate = options.rate / users
        self.random = random.Random(number)

    @task
    def put(self) -> None:
        """Closed loop: one command and its answer. Open loop: commands until the run ends."""
        if not self.rate:
            self.send(time.perf_counter())
            return
        intended = time.perf_counter()
        while True:
            intended += self.random.expovariate(self.rate)
            gevent.sleep(max(0.0, intended - time.perf_counter()))
            if self.environment.runner.state in ("stopping", "stopped", "cleanup"):
                raise StopUser
            gevent.spawn(self.send, intended)

    def send(self, intended: float) -> None:
        """One PUT; its response time counts from `intended`."""
        command = next(self.commands)
        key = quote_from_bytes(command.key, safe="")
        with self.client.put(
            f"/v1/kv/{key}",
            data=command.argument,  # type: ignore[arg-type] # bytes are sent as they are
            name=f"PUT [{self.region}]",
            catch_response=True,
        ) as response:
            if response.status_code == 200:
                path = response.headers.get("X-EPaxos-Path", "")
                response.request_meta["context"] = {"region": self.region, "path": path}
                response.success()
            else:
                why = response.text or str(response.error)
                response.failure(f"{response.status_code} {why[:120]}")
            response.request_meta["response_time"] = (time.perf_counter() - intended) * 1000


def user_classes(sites: Topology, first_port: int) -> dict[str, type[Region]]:
    """One class per region, named after it."""
    found: dict[str, type[Region]] = {}
    for position, place in enumerate(sites.regions):
        name = "".join(filter(str.isalnum, place.title)) or place.name
        found[name] = type(
            name,
            (Region,),
            {"region": place.title, "host": f"http://127.0.0.1:{first_port + position}"},
        )
    return found


try:
    globals().update(
        user_classes(
            find(_argument("--topology", DEFAULT)),
            int(_argument("--http-port", str(HTTP_PORT))),
        )
    )
except (TopologyError, ValueError) as error:
    sys.exit(f"error: {error}")


@events.quitting.add_listener  # type: ignore[untyped-decorator] # Locust's
def judge(environment: Environment, **_: Any) -> None:
    """A run in which a region's requests failed, or a region got none, exits with 1."""
    total = environment.stats.total
    if total.num_requests == 0 or total.num_failures > 0:
        environment.process_exit_code = 1
