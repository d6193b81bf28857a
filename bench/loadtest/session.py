"""Coordinates one Locust process: single, master or worker.

When all users are there, the master tells the workers the plan: how many users each region has in
all processes, so that they can divide the rate, and the step. Each second workers report what they
counted since; at the end they stop sending, wait for what is under way, and report the rest before
Locust ends its users.

Rules of this file: it is part of the locustfile, which alone imports it.
"""

import json
import logging
import time
from collections.abc import Sequence
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, Final

import gevent
import msgspec
from locust.exception import CatchResponseError
from locust.runners import MasterRunner, WorkerRunner

from bench.loadtest.counts import LoadCounts, decode
from bench.loadtest.generator import CommandReport, Generator, Plan, UserState
from bench.loadtest.options import (
    HTTP_PORT,
    Offer,
    Place,
    loop_of,
    parse_limits,
    parse_seconds,
    parse_steps,
    places,
    redirected,
    workload_text,
)
from bench.loadtest.seconds import SECONDS, SETTLED_S, Second, SecondsFile
from bench.loadtest.summary import Document, LoadLimits, broken, live, summarize, text, write
from bench.loadtest.targets import make_target
from epaxos.core.errors import ConfigError, EpaxosError
from epaxos.http_client import fetch_json
from epaxos.workload import Workload, parse_workload
from topology import TopologyError

LIVE: Final = "live.json"
"""In the results while the run goes on: what `epaxos load` shows."""
_PLAN, _STOP, _FINAL = "epaxos-plan", "epaxos-stop", "epaxos-final"
_PROBE_S: Final = 1.0
_FINAL_S: Final = 3.0
"""How long after the last patience a worker's last report may come."""
_USERS_MAX: Final = 1_000_000
"""Per process, for numbers that differ between processes."""
_CLOSED_USERS: Final = 10
"""Per region, where nothing was said."""
_TRIED: Final = 200
"""Commands that are made before a run, to see whether the target knows them."""
_PROTOCOLS: Final = {"epaxos": "EPaxos", "multipaxos": "Multi-Paxos", "raft": "Raft"}

log = logging.getLogger("epaxos")


def make_offer(options: Any) -> Offer:
    """What the options ask for. Raises ConfigError."""
    rate, steps = options.rate, parse_steps(options.steps)
    return Offer(
        workload=workload_text(
            options.workload, options.conflict_rate, options.keys, options.value_size
        ),
        seed=options.seed,
        rate=rate,
        loop=loop_of(options.tags or (), rate),
        steps=steps,
        step_s=parse_seconds(options.step_time, "--step-time"),
        warmup_s=parse_seconds(options.warmup, "--warmup"),
        target=options.target,
        patience_s=parse_seconds(options.patience, "--patience"),
        history=options.history,
        initial=options.history_initial,
    )


def make_places(options: Any) -> list[Place]:
    """The regions with users. Raises ConfigError, TopologyError."""
    return places(
        options.topology, options.replicas or None, options.clients, options.at, options.http_port
    )


def make_limits(options: Any, sites: Sequence[Place]) -> LoadLimits:
    """The criteria that the options state. Raises ConfigError."""
    titles, names = [place.title for place in sites], [place.name for place in sites]
    return LoadLimits(
        p99_ms=parse_limits(options.max_p99, titles, "--max-p99", names),
        fail_ratio=parse_limits(options.max_fail_ratio, titles, "--max-fail-ratio", names),
        rate=parse_limits(options.min_rate, titles, "--min-rate", names),
    )


def make_workload(offer: Offer, sites: Sequence[Place]) -> Workload:
    """The workload, tried against the target. Raises ConfigError."""
    regions = [place.name for place in sites]
    workload = parse_workload(offer.workload, offer.seed, regions)
    target = make_target(offer.target, "")
    for command in islice(workload.commands(regions[0]), _TRIED):
        target.request(command)
    return workload


def check(options: Any, sites: Sequence[Place]) -> None:
    """Raises ConfigError where the options make no sense."""
    make_limits(options, sites)
    make_workload(make_offer(options), sites)


class LoadSession:
    """Coordinates the runs of this process: alone, as Locust's master, or as a worker."""

    def __init__(self, environment: Any, sites: Sequence[Place]) -> None:
        self._environment = environment
        self._runner = environment.runner
        self._places = sites
        self._addressed = sites
        """The same before Locust's own options were heard."""
        self._given = {place.class_name: place.url for place in sites}
        """User class -> the URL that it got as its host."""
        self._everywhere: str | None = None
        """--host of the last run."""
        self._offer = make_offer(environment.parsed_options)
        options = environment.parsed_options
        self._has_addresses = bool(options.at) or options.http_port != HTTP_PORT
        self._generator: Generator | None = None
        """Not in a master."""
        self._total = LoadCounts()
        """Not in a worker."""
        self._finals: set[str] = set()
        """Workers whose last report is here."""
        self._step = 0
        self._begun: float | None = None
        """When the present step began."""
        self._document: Document | None = None
        self._setup: Document = {}
        self._seconds = SecondsFile(Path(SECONDS))
        self._numbers = count()
        self._names: dict[tuple[str, str], str] = {}
        self._context: dict[str, Any] = {}
        # Timers count from when the loop last looked at the clock; reading this file took long.
        gevent.get_hub().loop.update_now()
        self._listen()

    @property
    def _options(self) -> Any:
        return self._environment.parsed_options

    @property
    def _is_worker(self) -> bool:
        return isinstance(self._runner, WorkerRunner)

    @property
    def _leads_workers(self) -> bool:
        return isinstance(self._runner, MasterRunner)

    def _listen(self) -> None:
        hear = vars(self._environment.events)  # by name: one of the names is no word of ours
        hear["test_start"].add_listener(self._begin)
        hear["quitting"].add_listener(lambda **_: self._end())
        if self._is_worker:
            self._runner.register_message(_PLAN, self._on_plan)
            self._runner.register_message(_STOP, self._on_stop, concurrent=True)
            hear["report_to_master"].add_listener(self._report_to_leader)
            return
        hear["test_stopping"].add_listener(lambda **_: self._end())
        hear["spawning_complete"].add_listener(lambda **_: self._spawned())
        hear["quit"].add_listener(lambda **_: self._say())
        if self._leads_workers:
            self._runner.register_message(_FINAL, self._on_final)
            hear["worker_report"].add_listener(self._worker_report)
        self._set_users()
        if self._environment.web_ui is not None:
            self._environment.web_ui.app.add_url_rule("/epaxos", "epaxos", self._page)
        gevent.spawn(self._every_second)

    def _set_users(self) -> None:
        """Where nobody said how many users: a few per region, at once."""
        options, regions = self._options, len(self._places)
        each = self._options.users_per_region
        if not each:
            each = max(1, options.expect_workers) if self._offer.open else _CLOSED_USERS
        if options.num_users is None:
            options.num_users = regions * each
        if options.spawn_rate is None:
            options.spawn_rate = min(100, options.num_users)
        if options.num_users < regions:
            log.warning(
                "%d users for %d regions: some have none; write -u %d",
                options.num_users,
                regions,
                regions,
            )

    # A run begins ------------------------------------------------------------------------------

    def _begin(self, **_: Any) -> None:
        """In every process, when a test starts."""
        self._total = LoadCounts()
        self._write_seconds([], anew=True)
        self._finals.clear()
        self._document, self._begun, self._step = None, None, 0
        try:
            self._offer = make_offer(self._options)
            make_limits(self._options, self._places)
            self._read_places()
            workload = make_workload(self._offer, self._places)
        except (EpaxosError, TopologyError) as error:
            log.error("%s", error)
            self._generator, self._setup = None, {}
            gevent.spawn_later(0.1, self._runner.stop)
            return
        protocol = self._protocol()
        self._context = {"protocol": protocol}
        self._setup = self._describe(protocol)
        if not self._leads_workers:
            index = max(0, self._runner.worker_index)
            self._generator = Generator(self._offer, self._places, str(index), self._fire)
            self._workload = workload
            self._numbers = count(index * _USERS_MAX)

    def _read_places(self) -> None:
        """Addresses may have been changed in the web page; regions may not. A worker that was told
        addresses of its own keeps them. Raises ConfigError."""
        if not (self._is_worker and self._has_addresses):
            now = make_places(self._options)
            if [place.class_name for place in now] != [place.class_name for place in self._places]:
                raise ConfigError(
                    "the regions with users are fixed when Locust starts: end it, and start it "
                    f"with --topology {self._options.topology}"
                )
            self._addressed = now
        self._places = redirected(self._addressed, self._hosts())

    def _hosts(self) -> dict[str, str]:
        """The URLs that Locust was told, by user class: --host is for all, then --config-users, or
        the page's fields, for one. A class that nobody changed has the URL that it was given."""
        everywhere = self._environment.host
        if {everywhere} == set(self._given.values()):
            everywhere = None  # the page filled in what all classes were given
        found = {}
        for place in self._addressed:
            name = place.class_name
            (users,) = (each for each in self._environment.user_classes if each.__name__ == name)
            if everywhere:
                found[name] = everywhere
            elif users.host and users.host not in (self._given[name], self._everywhere):
                found[name] = users.host
            else:
                users.host = place.url
            self._given[name] = place.url
        self._everywhere = everywhere
        return found

    def _protocol(self) -> str:
        """What the first replica that answers says it runs."""
        if self._offer.target == "etcd":
            return "etcd"
        for url in dict.fromkeys(place.url for place in self._places):
            try:
                return str(fetch_json(f"{url}/v1/status", _PROBE_S)["protocol"])
            except (EpaxosError, KeyError):
                continue
        return "unknown"

    def _describe(self, protocol: str) -> Document:
        offer, options = self._offer, self._options
        loop = "open" if offer.open else "closed"
        parts = [options.topology, _PROTOCOLS.get(protocol, protocol), f"{loop} loop"]
        if offer.steps:
            what = "commands/s" if offer.open else "users"
            parts.append(f"{', '.join(f'{step:g}' for step in offer.steps)} {what} per region")
        elif offer.open:
            parts.append(f"{offer.rate:g} commands/s per region")
        parts += [offer.workload, f"seed {offer.seed}"]
        return {
            "title": " · ".join(parts),
            "topology": options.topology,
            "target": offer.target,
            "protocol": protocol,
            "loop": loop,
            "rate": offer.rate,
            "steps": list(offer.steps),
            "step_s": offer.step_s if offer.steps else None,
            "workload": offer.workload,
            "seed": offer.seed,
            "warmup_s": offer.warmup_s,
            "patience_s": offer.patience_s,
            "check": bool(offer.history),
        }

    def _spawned(self) -> None:
        """All users are there: tell everybody."""
        if self._document is not None or (self._generator is None and not self._leads_workers):
            return
        self._send_plan()
        if self._begun is not None:
            self._begun = time.monotonic()
        elif not self._leads_workers:
            self._note_begin()

    def _note_begin(self) -> None:
        """The first step has begun; a master hears that from the workers' figures."""
        window = self._total.windows.get(0)
        if self._begun is None and (window is not None or not self._leads_workers):
            measured_s = window.measured_us / 1e6 if window is not None else 0.0
            counted_s = measured_s + self._offer.warmup_s if measured_s else 0.0
            self._begun = time.monotonic() - counted_s

    def _send_plan(self) -> None:
        offer = self._offer
        if self._leads_workers:
            users = dict(self._runner.target_user_classes_count)
        else:
            users = dict(self._runner.user_classes_count)
        wanted = offer.rate or sum(users.values()) / len(self._places)
        if offer.steps:
            wanted = offer.steps[self._step]
        plan = Plan(self._step, wanted if offer.open else 0.0, users, wanted)
        if self._leads_workers:
            self._runner.send_message(_PLAN, msgspec.msgpack.encode(plan))
        elif self._generator is not None:
            self._generator.apply(plan)

    def _on_plan(self, msg: Any, **_: Any) -> None:
        if self._generator is not None:
            self._generator.apply(msgspec.msgpack.decode(msg.data, type=Plan))

    # Users -------------------------------------------------------------------------------------

    def user_state(self, name: str) -> UserState | None:
        """For a new user of a class; None where the run was refused."""
        generator = self._generator
        if generator is None:
            return None
        (server,) = (server for server in generator.servers if server.place.class_name == name)
        return UserState(server, self._workload, next(self._numbers), self._offer.seed)

    def drive(self, user: UserState | None, name: str) -> None:
        """A user's task."""
        generator = self._generator
        if generator is None or user is None:
            gevent.sleep(0.1)
        elif self._offer.open:
            generator.open_loop(user, name)
        else:
            generator.closed_loop(user)

    def _fire(self, report: CommandReport) -> None:
        meaning, title = report.meaning, report.place.title
        key = (meaning.operation, title)
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = f"{meaning.operation} [{title}]"
        self._environment.events.request.fire(
            request_type=report.request.method,
            name=name,
            response_time=report.answer_ms,
            response_length=report.length,
            exception=CatchResponseError(meaning.failure) if meaning.failure else None,
            context=self._context | {"region": title, "path": meaning.path, "step": report.step},
            url=report.place.url,
        )

    def tick(self) -> tuple[int, float] | None:
        """Of a stepwise run: users and spawn rate of this moment; None: it is over."""
        offer = self._offer
        # Asked once a second; a step may not be a second longer for some milliseconds.
        if self._begun is not None and time.monotonic() - self._begun > offer.step_s - 0.05:
            if self._step + 1 >= len(offer.steps):
                return None
            self._step += 1
            self._begun = time.monotonic()
            if offer.open:
                self._send_plan()
        users = int(self._options.num_users)
        if not offer.open:
            users = len(self._places) * max(1, round(offer.steps[self._step]))
        return users, float(min(100, users))

    # Counting ----------------------------------------------------------------------------------

    def _report_to_leader(self, data: dict[str, Any], **_: Any) -> None:
        if self._generator is not None and not self._generator.stopping:
            data["epaxos"] = self._generator.take().encode()

    def _worker_report(self, data: dict[str, Any], **_: Any) -> None:
        if "epaxos" in data:
            self._total.add(decode(data["epaxos"]))
            self._note_begin()

    def _gather(self) -> None:
        """What this process itself counted."""
        if self._generator is not None:
            self._total.add(self._generator.take())

    def _every_second(self) -> None:
        while True:
            gevent.sleep(1.0)
            if self._document is None and self._runner.state in ("spawning", "running"):
                self._gather()
                self._write_live("running" if self._begun is not None else "spawning")
                over = int(time.time()) - SETTLED_S
                self._write_seconds(self._seconds.due(self._total.seconds, over))

    def _write_seconds(self, seconds: Sequence[Second], *, anew: bool = False) -> None:
        """In a thread, for the same reason."""
        if anew:
            self._seconds = SecondsFile(Path(self._options.results or ".") / SECONDS)
        if self._options.results and not self._is_worker and (seconds or anew):
            pool = gevent.get_hub().threadpool
            try:
                pool.apply(partial(self._seconds.write, seconds, anew=anew))
            except OSError as error:
                log.error("--results %s: %s", self._options.results, error.strerror)

    def _write_live(self, state: str) -> None:
        if not self._options.results:
            return
        meanwhile = self._generator.queue.run if self._generator is not None else _nothing
        document = json.dumps(live(self._total, self._places, state, meanwhile))
        path = Path(self._options.results) / LIVE
        # In a thread: where replicas sync to the same disk, writing takes up to half a second.
        gevent.get_hub().threadpool.apply(_replace, (path, document))
        if self._document is not None:  # the run ended meanwhile
            path.unlink(missing_ok=True)

    # A run ends --------------------------------------------------------------------------------

    def _on_stop(self, **_: Any) -> None:
        """At a worker: the run is over."""
        if self._generator is not None:
            self._generator.drain()
            self._runner.send_message(_FINAL, self._generator.take().encode())
            self._generator = None
        else:
            self._runner.send_message(_FINAL, LoadCounts().encode())

    def _on_final(self, msg: Any, **_: Any) -> None:
        self._total.add(decode(msg.data))
        self._finals.add(msg.node_id)

    def _end(self) -> None:
        """Send nothing more, wait for what is under way, and sum up; once per run."""
        if self._is_worker:
            if self._generator is not None:
                self._on_stop()
            return
        if not self._setup:
            if self._options.headless:
                self._environment.process_exit_code = 1  # it ended before it began
            return
        if self._document is not None:
            return
        if self._leads_workers:
            self._wait_for_workers()
        elif self._generator is not None:
            self._generator.drain()
            self._gather()
        self._sum_up()

    def _wait_for_workers(self) -> None:
        self._runner.send_message(_STOP)
        limit = time.monotonic() + self._offer.patience_s + _FINAL_S
        while time.monotonic() < limit:
            missing = {
                client.id for client in self._runner.clients.all if client.state != "missing"
            } - self._finals
            if not missing:
                return
            gevent.sleep(0.05)
        log.error("%d workers did not report in time; their last figures are missing", len(missing))

    def _sum_up(self) -> None:
        limits = make_limits(self._options, self._places)
        self._write_seconds(self._seconds.due(self._total.seconds))
        self._document = summarize(self._total, self._places, self._setup, limits)
        if broken(self._document):
            self._environment.process_exit_code = 1
        if self._options.results:
            directory = Path(self._options.results)
            try:
                write(directory, self._document, self._total, self._places)
                (directory / LIVE).unlink(missing_ok=True)
            except OSError as error:
                log.error("--results %s: %s", directory, error.strerror)
                self._environment.process_exit_code = 1

    def _say(self) -> None:
        """After Locust's own tables."""
        if self._document is None:
            return
        print(f"\n{text(self._document)}", flush=True)
        if self._options.results:
            print(f"results  {self._options.results}", flush=True)

    def _page(self) -> Document:
        """`/epaxos` of the web page: the figures of this moment, or of the run that is over."""
        if self._document is not None:
            return self._document
        if self._begun is None:
            return {"state": "no run yet"}
        return summarize(
            self._total, self._places, self._setup, make_limits(self._options, self._places)
        )


def _nothing() -> None:
    """There is never anything due."""


def _replace(path: Path, document: str) -> None:
    """Write a file so that a reader finds it whole. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(document, encoding="utf-8")
    new.replace(path)
