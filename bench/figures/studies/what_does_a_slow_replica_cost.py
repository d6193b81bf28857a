"""Throughput and latency when one replica is slow (SOSP 2013, the slow-replica bars of Figure 5).

Rules of this file: in virtual time nothing takes CPU, so a slow replica is one whose links take
FACTOR times as long, the whole time.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

from matplotlib.axes import Axes

from bench.analysis.statistics import stated_percentile
from bench.drawing import style
from bench.figures.plan import Picture, Scale, Study, StudyResults, conditions
from bench.figures.published import THROUGHPUT, WITH_A_SLOW_REPLICA
from bench.figures.studies.what_does_a_site_see import MATRIX, PAPERS_LEADER
from bench.trials.trial import Trial

FACTOR: Final = 3
_SLOW: Final = PAPERS_LEADER
_OTHER_LEADER: Final = "OR"
_SITES: Final = ("VA", "CA", "OR", "JP", "EU")


@dataclass(frozen=True)
class _Case:
    label: str
    trial: Trial
    look: style.Look
    published: tuple[str, int] | None
    """Of what is known from the paper."""

    @property
    def slowed(self) -> Trial:
        """The same with the slow replica."""
        fault = f"slow:{_SLOW}@0-{self.trial.duration_s:g},factor={FACTOR}"
        return replace(self.trial, faults=(fault,))


def _trial(scale: Scale, conflict: int, **changes: Any) -> Trial:
    """Clients in a closed loop, whose number bounds the throughput. Where nothing conflicts they
    send much, and half the usual length is enough."""
    share = 1 if conflict else 0.5
    trial = Trial(
        topology=MATRIX,
        workload=f"conflict:{conflict}",
        rate=0.0,
        clients=10,
        duration_s=max(1.0, round(scale.simulated_s * share, 1)),
        durability="memory",
        simulated=True,
    )
    return replace(trial, **changes)


def _cases(scale: Scale) -> list[_Case]:
    far = style.Look(style.SHADES[3], "D", "-", "xxx")
    led = _trial(scale, 0, protocol="multipaxos")
    return [
        _Case("EPaxos 0 %", _trial(scale, 0), style.EPAXOS, ("epaxos", 0)),
        _Case("EPaxos 100 %", _trial(scale, 100), far, ("epaxos", 100)),
        _Case(
            "EPaxos 100 %,\nwithout the rule",
            _trial(scale, 100, gate=False),
            style.EPAXOS_UNSAFE,
            ("epaxos", 100),
        ),
        _Case(
            "Multi-Paxos,\nfollower slow",
            replace(led, leader=_OTHER_LEADER),
            style.MULTIPAXOS,
            None,
        ),
        _Case(
            "Multi-Paxos,\nleader slow",
            replace(led, leader=_SLOW),
            style.MULTIPAXOS_WORST,
            ("multipaxos", 0),
        ),
    ]


def trials(scale: Scale) -> list[Trial]:
    """Every case with all replicas well, and with one slow."""
    return [trial for case in _cases(scale) for trial in (case.trial, case.slowed)]


def draw(results: StudyResults) -> list[Picture]:
    """What is left of the throughput; what each site waits."""
    scale = results.scale
    cases = _cases(scale)
    figure = style.make(style.PAGE_IN, 3.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    _remaining(left, results, cases)
    _sites(right, results, cases)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return [
        Picture(
            name="slow-replica",
            title=f"One replica ({_SLOW}) is {FACTOR} times as far away",
            figure=figure,
            caption=(
                f"(a) Commands per second that remain when the links of {_SLOW} take {FACTOR} "
                f"times as long; diamonds: the paper's. (b) Median execution latency per site, "
                "hollow before, filled with the slow replica. Without conflicts EPaxos loses at "
                "the slow site, and where the slow replica was in the nearest quorum; the other "
                "sites answer as before. At 100 % each command depends on those of the slow site, "
                "so all sites wait for it. Multi-Paxos loses everywhere if its leader is the slow "
                "one, and little otherwise. Where ours differs: the paper's replica has a slow "
                "processor in one data centre with clients that saturate it; ours has slow links "
                "between regions and clients in a closed loop, so only the order of the bars can "
                "be compared. With the "
                "contended-key rule and without, because the rule changes what a hot key costs."
            ),
            conditions=conditions(trials(scale), scale, "execution latency, medians"),
            rows=[row for case in cases for row in _rows(results, case)],
        )
    ]


def _remaining(axes: Axes, results: StudyResults, cases: list[_Case]) -> None:
    style.letter(axes, "a", "throughput that remains")
    for at, case in enumerate(cases):
        well, slow = results[case.trial], results[case.slowed]
        share = slow.throughput / max(well.throughput, 1e-9) * 100
        axes.barh(at, share, 0.7, **case.look.filled)
        paper = _papers_share(case)
        axes.text(max(share + 2, (paper or 0.0) + 6), at, f"{share:.0f} %", va="center")
        if paper is not None:
            axes.plot(paper, at, marker="D", markersize=4, color=style.INK, markerfacecolor="white")
    axes.set_yticks(range(len(cases)), [case.label for case in cases])
    axes.invert_yaxis()
    axes.set_xlim(0, 118)
    axes.set_xlabel("% of commands/s with all replicas well")
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _papers_share(case: _Case) -> float | None:
    if case.published is None:
        return None
    protocol, conflict = case.published
    return WITH_A_SLOW_REPLICA[case.published] / THROUGHPUT[5, protocol, conflict] * 100


def _sites(axes: Axes, results: StudyResults, cases: list[_Case]) -> None:
    style.letter(axes, "b", "median execution latency per site")
    for number, case in enumerate(cases):
        shift = (number - (len(cases) - 1) / 2) * 0.15
        well, slow = results[case.trial], results[case.slowed]
        for at, site in enumerate(_SITES):
            before = stated_percentile(well.answer_ms(site), 50)
            after = stated_percentile(slow.answer_ms(site), 50)
            if before is None or after is None:
                continue
            colour = case.look.colour
            axes.plot((at + shift,) * 2, (before, after), color=colour, linewidth=1)
            axes.plot(at + shift, before, case.look.marker, color=colour, markerfacecolor="white")
            axes.plot(
                at + shift,
                after,
                case.look.marker,
                color=colour,
                label=case.label.replace("\n", " ") if at == 0 else None,
            )
    axes.set_xticks(range(len(_SITES)), _SITES)
    axes.set_ylim(0)
    axes.set_ylabel("ms")
    axes.tick_params(axis="x", length=0)


def _rows(results: StudyResults, case: _Case) -> list[dict[str, Any]]:
    found = []
    for name, trial in (("well", case.trial), ("slow", case.slowed)):
        pool = results[trial]
        found.append(
            {
                "case": case.label.replace("\n", " "),
                "replicas": "all well" if name == "well" else f"{_SLOW} slow",
                "commands_per_s": round(pool.throughput, 1),
                **{
                    f"{site}_answer_p50_ms": stated_percentile(pool.answer_ms(site), 50)
                    for site in _SITES
                },
            }
        )
    return found


STUDY: Final = Study(
    name="what-does-a-slow-replica-cost",
    question="What does one slow replica cost the others?",
    source="SOSP 2013, the slow-replica bars of its throughput figures",
    trials=trials,
    draw=draw,
)
