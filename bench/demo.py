"""The demonstrations of leaderlessness: a leader moves far away; a region dies and returns.

Both protocols get the same load at the same time, each from a cluster of its own. What is seen
afterwards, figure and sentences, is made from the samples; what is seen meanwhile is what each
replica says of the answers of the last step.

Rules of this file: no terminal; latency is execution latency, from the intended start.
"""

import re
import threading
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.drawing import style
from bench.drawing.timeline import draw_curve, shade
from bench.figures.over_time import medians
from bench.figures.plan import PooledTrials
from bench.progress import ProgressClock, ProgressReport, Watch
from bench.trials.executors import Stopped
from bench.trials.trial import Outcome, Trial, run_trial
from epaxos.core.errors import CodecError, ConfigError
from epaxos.http_client import fetch
from epaxos.percentile import median
from topology import DEFAULT, Topology, best_leader, find, worst_leader

MULTIPAXOS: Final = "Multi-Paxos"
EPAXOS: Final = "EPaxos"
STEP_S: Final = 1.0
"""How often people are told, and the steps of medians."""
_RATE: Final = 20.0
_ASK_WITHIN_S: Final = 0.5
_SETTLED_S: Final = 1.0
"""After an event, before what comes after it is judged."""
_SUM: Final = re.compile(r"^epaxos_execute_latency_seconds_sum(?:{[^}]*})? (\S+)$", re.M)
_COUNT: Final = re.compile(r"^epaxos_execute_latency_seconds_count(?:{[^}]*})? (\S+)$", re.M)


@dataclass(frozen=True)
class Demo:
    """What is shown."""

    name: str
    title: str
    sites: Topology
    trials: dict[str, Trial]
    """Per protocol, by its title."""
    leaders: tuple[int, ...]
    """Regions of Multi-Paxos's leader, in order of time."""
    event: str
    """What happens, in words."""
    from_s: float
    until_s: float | None
    """None: it is a moment."""

    @property
    def length_s(self) -> float:
        """Of what is measured."""
        return next(iter(self.trials.values())).duration_s


def far_leader(
    topology: str = DEFAULT,
    replicas: int | None = None,
    seconds: float = 16.0,
    *,
    simulated: bool = False,
    seed: int = 1,
) -> Demo:
    """The leader moves from the best region for it to the worst. Raises ConfigError."""
    sites = _sites(topology, replicas)
    near, far = best_leader(sites), worst_leader(sites)
    at_s = round(seconds * 0.4, 1)
    trial = _trial(topology, replicas, seconds, simulated, seed)
    regions = sites.regions
    return Demo(
        "far-leader",
        f"The leader moves from {regions[near].title} to {regions[far].title}",
        sites,
        {
            MULTIPAXOS: replace(
                trial,
                protocol="multipaxos",
                leader=regions[near].name,
                faults=(f"leader:{regions[far].name}@{at_s:g}",),
            ),
            EPAXOS: trial,
        },
        (near, far),
        f"the leader moves to {regions[far].title}",
        at_s,
        None,
    )


def region_down(
    topology: str = DEFAULT,
    replicas: int | None = None,
    seconds: float = 20.0,
    *,
    simulated: bool = False,
    seed: int = 1,
) -> Demo:
    """The replica of the leader's region dies and returns. Raises ConfigError."""
    sites = _sites(topology, replicas)
    dead = best_leader(sites)
    from_s, until_s = round(seconds * 0.25, 1), round(seconds * 0.65, 1)
    title, name = sites.regions[dead].title, sites.regions[dead].name
    trial = replace(
        _trial(topology, replicas, seconds, simulated, seed),
        faults=(f"crash:{name}@{from_s:g}-{until_s:g}",),
    )
    return Demo(
        "region-down",
        f"The replica in {title} dies and returns",
        sites,
        {MULTIPAXOS: replace(trial, protocol="multipaxos", leader=name), EPAXOS: trial},
        (dead,),
        f"{title} is down",
        from_s,
        until_s,
    )


def _sites(topology: str, replicas: int | None) -> Topology:
    sites = find(topology, replicas)
    if sites.n < 3:
        raise ConfigError(f"{topology} has {sites.n} regions; a demonstration needs 3 or more")
    return sites


def _trial(
    topology: str, replicas: int | None, seconds: float, simulated: bool, seed: int
) -> Trial:
    if seconds < 8:
        raise ConfigError(f"seconds = {seconds:g} must be 8 or more, for something to be seen")
    return Trial(
        topology=topology,
        replicas=replicas,
        rate=_RATE,
        duration_s=seconds,
        simulated=simulated,
        jitter=simulated,
        seed=seed,
    )


# Running ---------------------------------------------------------------------------------------


Steps = dict[str, list[list[float | None]]]
"""Protocol -> region -> mean of each step's answers in ms; None: there were none."""


@dataclass(frozen=True, kw_only=True)
class DemoReport(ProgressReport):
    """Progress of a demonstration, with the latencies seen so far."""

    steps: Steps
    at_s: float | None = None
    """Time since the start of what is measured; None: not yet."""


def run(demo: Demo, directory: Path, watch: Watch[DemoReport]) -> dict[str, Outcome]:
    """Run both protocols; real ones at the same time. Raises EpaxosError; whatever happens, no
    process is left."""
    if next(iter(demo.trials.values())).simulated:
        return _run_virtual(demo, directory, watch)
    stop = threading.Event()

    def beat(share: float) -> None:
        if stop.is_set():
            raise Stopped

    places = {title: directory / trial.protocol for title, trial in demo.trials.items()}
    with ThreadPoolExecutor(len(demo.trials)) as threads:
        futures = {
            title: threads.submit(run_trial, trial, places[title], beat)
            for title, trial in demo.trials.items()
        }
        try:
            _follow(demo, places, list(futures.values()), watch)
        except BaseException:
            stop.set()
            raise
        return {title: future.result() for title, future in futures.items()}


def _run_virtual(demo: Demo, directory: Path, watch: Watch[DemoReport]) -> dict[str, Outcome]:
    clock = ProgressClock(
        sum(trial.duration_s for trial in demo.trials.values()),
        lambda report: watch(DemoReport(**vars(report), steps=_no_steps(demo))),
    )
    found = {}
    for title, trial in demo.trials.items():
        tell = partial(clock.tell, title, "in virtual time", expected_s=trial.duration_s)
        found[title] = run_trial(trial, directory, tell)
        clock.ended(title, trial.duration_s)
    return found


def _no_steps(demo: Demo) -> Steps:
    return {title: [[] for _ in demo.sites.regions] for title in demo.trials}


def _follow(
    demo: Demo,
    places: dict[str, Path],
    futures: Sequence[Future[Outcome]],
    watch: Watch[DemoReport],
) -> None:
    """Ask the replicas once per step until both have ended, or one has failed."""
    warmup_s = next(iter(demo.trials.values())).warmup_s
    steps = _no_steps(demo)
    means = _Means()
    began: float | None = None
    with ThreadPoolExecutor(len(places) * demo.sites.n) as threads:
        while not all(future.done() for future in futures):
            if any(future.done() and future.exception() for future in futures):
                return
            due = time.monotonic() + STEP_S
            ports = {title: _http_ports(place) for title, place in places.items()}
            asked = [
                (title, region, threads.submit(_ask, port))
                for title, found in ports.items()
                for region, port in enumerate(found)
            ]
            values = [means.step(title, region, each.result()) for title, region, each in asked]
            if began is None and any(value is not None for value in values):
                began = time.monotonic()
            at_s = None
            if began is not None:
                at_s = time.monotonic() - began - warmup_s
                for (title, region, _), value in zip(asked, values):
                    steps[title][region].append(value)
            watch(_report(demo, steps, at_s))
            time.sleep(max(0.0, due - time.monotonic()))


def _report(demo: Demo, steps: Steps, at_s: float | None) -> DemoReport:
    share = min(max(0.0, at_s or 0.0) / demo.length_s, 1.0)
    return DemoReport(
        activity="starting all replicas" if at_s is None else _activity(demo, at_s),
        share=share,
        total=share,
        left_s=(1 - share) * demo.length_s,
        steps=steps,
        at_s=at_s,
    )


def _activity(demo: Demo, at_s: float) -> str:
    if at_s < demo.from_s:
        return f"in {demo.from_s - at_s:.0f} s: {demo.event}"
    if demo.until_s is None:
        return f"{at_s - demo.from_s:.0f} s ago: {demo.event}"
    if at_s < demo.until_s:
        return f"{demo.event}, for {demo.until_s - at_s:.0f} s more"
    return "all replicas are up"


def _http_ports(place: Path) -> list[int]:
    """Where the replicas of a cluster answer; none yet, before it has its whole file."""
    try:
        document = tomllib.loads((place / "cluster.toml").read_text("utf-8"))
        return [int(each["http_port"]) for each in document["replicas"]]
    except (OSError, tomllib.TOMLDecodeError, KeyError):
        return []


def _ask(port: int) -> tuple[float, float] | None:
    """Sum of all answers' latencies in s, and their number; None: it does not answer."""
    try:
        text = fetch(f"http://127.0.0.1:{port}/metrics", _ASK_WITHIN_S).decode()
    except (OSError, ValueError, CodecError):
        return None
    total, count = _SUM.search(text), _COUNT.search(text)
    return (float(total[1]), float(count[1])) if total and count else None


class _Means:
    """Means of what replicas answered between two looks at their counters."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], tuple[float, float]] = {}
        """(protocol, region) -> sum and count at the last look."""

    def step(self, title: str, region: int, said: tuple[float, float] | None) -> float | None:
        """Mean latency in ms since the last look; None where nothing was answered."""
        if said is None:
            return None
        total, count = said
        before_total, before_count = self._seen.get((title, region), (0.0, 0.0))
        self._seen[title, region] = said
        if count < before_count:  # it has begun anew
            before_total = before_count = 0.0
        answered = count - before_count
        return (total - before_total) / answered * 1000 if answered > 0 else None


# What was seen ---------------------------------------------------------------------------------


def pools(demo: Demo, outcomes: dict[str, Outcome]) -> dict[str, PooledTrials]:
    """The samples of each protocol."""
    return {title: PooledTrials(trial, [outcomes[title]]) for title, trial in demo.trials.items()}


def curves(demo: Demo, found: dict[str, PooledTrials]) -> Steps:
    """Like `DemoReport.steps`, but true medians, from the samples."""
    return {
        title: [list(medians(pool, name, STEP_S).values) for name in pool.regions]
        for title, pool in found.items()
    }


def draw(demo: Demo, found: dict[str, PooledTrials]) -> Figure:
    """A panel per protocol, a line per region; what happened as a line or a shade."""
    with style.styled():
        figure = style.make(style.PAGE_IN, 3.1)
        panels = figure.subplots(1, len(found), sharex=True, sharey=True)
        for axes, (title, pool) in zip(panels, found.items()):
            axes.set_title(title, loc="left", fontweight="bold")
            events = pool.outcomes[0].events
            shade(axes, events, demo.length_s)
            for number, region in enumerate(demo.sites.regions):
                look = style.Look(
                    style.REGIONS[number % len(style.REGIONS)],
                    style.REGION_MARKERS[number % len(style.REGION_MARKERS)],
                )
                curve = medians(pool, region.name, STEP_S / 2)
                draw_curve(axes, curve, look, region.title)
            said = demo.event if events else "no leader to move"
            if not events:
                axes.axvline(demo.from_s, color=style.SOFT, linewidth=0.8, linestyle=(0, (1, 3)))
            axes.text(
                demo.from_s,
                1.0,
                f" {said}",
                transform=axes.get_xaxis_transform(),
                fontsize=7,
                color=style.SOFT,
                va="top",
                in_layout=False,
            )
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel("s")
        panels[0].set_ylim(0, panels[0].get_ylim()[1] * 1.1)
        panels[0].set_xlim(0, demo.length_s)
        panels[0].set_ylabel("median answer, ms")
        style.legend_above(figure, panels[0], len(demo.sites.regions))
        parts = caption(demo).split(" · ")
        lines = " · ".join(parts[:5]), " · ".join(parts[5:])
        figure.supxlabel("\n".join(lines), fontsize=7, color=style.SOFT)
    return figure


def caption(demo: Demo) -> str:
    """What it was measured under."""
    trial = demo.trials[EPAXOS]
    world = "virtual time, with jitter" if trial.simulated else "real processes on one machine"
    return (
        f"{demo.sites.name} · n = {demo.sites.n} · {trial.durability} · open loop, {trial.rate:g} "
        f"commands/s per region · 0 % conflicts · execution latency, steps of {STEP_S / 2:g} s · "
        f"one run, seed {trial.seed} · {world}"
    )


def sentences(demo: Demo, found: dict[str, PooledTrials]) -> list[str]:
    """Two or three sentences, from the data."""
    if demo.until_s is None:
        return _moved(demo, found)
    return _died(demo, found)


def _moved(demo: Demo, found: dict[str, PooledTrials]) -> list[str]:
    regions = demo.sites.regions
    near, far = (regions[index].title for index in demo.leaders)
    before = {title: _medians(demo, pool, after=False) for title, pool in found.items()}
    after = {title: _medians(demo, pool, after=True) for title, pool in found.items()}
    led = [
        (b, a, r.title)
        for b, a, r in zip(before[MULTIPAXOS], after[MULTIPAXOS], regions)
        if b is not None and a is not None
    ]
    slower = [(a - b, b, a, title) for b, a, title in led if a > b * 1.05]
    said = []
    if slower:
        _, b, a, title = max(slower)
        said.append(
            f"When Multi-Paxos's leader moved from {near} to {far}, the median answer rose in "
            f"{len(slower)} of {len(regions)} regions, most in {title}: from {b:,.0f} to "
            f"{a:,.0f} ms."
        )
    else:
        said.append(f"Moving Multi-Paxos's leader from {near} to {far} made no region slower.")
    drift = max(
        (
            abs(a - b)
            for b, a in zip(before[EPAXOS], after[EPAXOS])
            if b is not None and a is not None
        ),
        default=0.0,
    )
    said.append(
        f"EPaxos has no leader to move: no region's median changed by more than {drift:.1f} ms."
    )
    lost = sum(fate.sent - fate.answered for fate in found[MULTIPAXOS].outcomes[0].load.fates)
    if lost:
        said[0] += f" Around the move {lost:,} of its commands stayed unanswered."
    wins = [
        sum(
            e < m * 0.99
            for e, m in zip(after[EPAXOS], at[MULTIPAXOS])
            if e is not None and m is not None
        )
        for at in (before, after)
    ]
    said.append(
        f"EPaxos answered faster in {wins[0]} of {len(regions)} regions while the leader was in "
        f"{near}, and in {wins[1]} once it was in {far}."
    )
    return said


def _medians(demo: Demo, pool: PooledTrials, *, after: bool) -> list[float | None]:
    """Per region, of what was asked before the event, or some time after it; None: nothing."""
    first_us = pool.trial.warmup_s * 1e6
    edge_us = first_us + (demo.from_s + (_SETTLED_S if after else -_SETTLED_S)) * 1e6
    found: list[float | None] = []
    for region in range(len(pool.regions)):
        values = [
            s.answer_us / 1000
            for s in pool.samples
            if s.region == region and (s.start_us >= edge_us) is after
        ]
        found.append(median(values))
    return found


def _died(demo: Demo, found: dict[str, PooledTrials]) -> list[str]:
    dead = demo.sites.regions[demo.leaders[0]]
    silences = {title: _silence_s(demo, pool, dead.name) for title, pool in found.items()}
    where, longest = silences[EPAXOS]
    led_where, led_longest = silences[MULTIPAXOS]
    others = demo.sites.n - 1
    said = [
        f"When the replica in {dead.title} died, which led Multi-Paxos, the clients of the other "
        f"{others} regions were without an answer for up to {led_longest:.1f} s with Multi-Paxos "
        f"({led_where}) and up to {longest:.1f} s with EPaxos ({where})."
    ]
    lost = {title: _unanswered(pool, dead.name) for title, pool in found.items()}
    said.append(
        f"Of the commands of those regions, Multi-Paxos left {lost[MULTIPAXOS]:,} unanswered and "
        f"EPaxos {lost[EPAXOS]:,}; {dead.title}'s own clients had nobody to ask with either."
    )
    return said


def _silence_s(demo: Demo, pool: PooledTrials, dead: str) -> tuple[str, float]:
    """Where, among the other regions, no answer came for the longest time, and how long. A region
    asks many times per second, so what is longer than a moment is the protocol's silence."""
    worst, where = 0.0, ""
    first_us = pool.trial.warmup_s * 1e6
    for number, name in enumerate(pool.regions):
        if name == dead:
            continue
        ends = sorted(s.start_us + s.answer_us for s in pool.samples if s.region == number)
        moments = np.array([first_us, *ends, first_us + demo.length_s * 1e6])
        gap = float(np.diff(moments).max()) / 1e6
        if gap > worst:
            worst, where = gap, demo.sites.regions[demo.sites.index(name)].title
    return where, worst


def _unanswered(pool: PooledTrials, dead: str) -> int:
    fates = pool.outcomes[0].load.fates
    return sum(fate.sent - fate.answered for name, fate in zip(pool.regions, fates) if name != dead)
