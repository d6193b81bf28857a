"""Throughput of one data centre against conflicts (SOSP 2013, Figures 5 and 6).

Rules of this file: real processes without delays between them, so what bounds throughput is CPU;
one command per instance, as the paper's, and batches, as the project runs.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bench.drawing import style
from bench.drawing.draw import thousands
from bench.figures.plan import Picture, Scale, Study, StudyResults, conditions
from bench.figures.published import THROUGHPUT
from bench.trials.trial import Trial

_CONFLICTS: Final = (0, 2, 25, 100)
_SIZES: Final = (3, 5)
_CLIENTS: Final = 40


@dataclass(frozen=True)
class _Bar:
    label: str
    protocol: str
    conflict: int
    gate: bool
    look: style.Look


_BARS: Final = (
    *(
        _Bar(
            f"EPaxos {conflict} %",
            "epaxos",
            conflict,
            False,
            style.Look(style.SHADES[i], hatch=style.SHADE_HATCHES[i]),
        )
        for i, conflict in enumerate(_CONFLICTS)
    ),
    _Bar("EPaxos 100 %, with the rule", "epaxos", 100, True, style.EPAXOS_UNSAFE),
    _Bar("Multi-Paxos", "multipaxos", 0, True, style.MULTIPAXOS),
)


def _trial(scale: Scale, n: int, bar: _Bar) -> Trial:
    trial = Trial(
        protocol=bar.protocol,
        topology=f"lan:{n}",
        workload=f"conflict:{bar.conflict}",
        rate=0.0,
        clients=_CLIENTS,
        warmup_s=0.7,
        duration_s=scale.real_s,
        durability="memory",
        gate=bar.gate,
    )
    return trial if bar.gate and bar.protocol == "epaxos" else replace(trial, batch_commands=1)


def trials(scale: Scale) -> list[Trial]:
    """Three replicas and five."""
    return [_trial(scale, n, bar) for n in _SIZES for bar in _BARS]


def draw(results: StudyResults) -> list[Picture]:
    """Commands per second; and in parts of EPaxos without conflicts, beside the paper's."""
    scale = results.scale
    figure = style.make(style.PAGE_IN, 2.8)
    ours, shares = figure.subplots(1, 2)
    rows = [row for n in _SIZES for row in _rows(results, n)]
    _bars(ours, results, relative=False)
    _bars(shares, results, relative=True)
    style.letter(ours, "a", "on one machine")
    style.letter(shares, "b", "in parts of EPaxos at 0 %")
    thousands(ours)
    shares.set_ylabel("% of EPaxos at 0 %")
    ours.set_ylabel("commands/s")
    handles, labels = ours.get_legend_handles_labels()
    paper = Line2D(
        [], [], marker="D", markersize=3.5, color=style.INK, markerfacecolor="white", linestyle=""
    )
    figure.legend([*handles, paper], [*labels, "paper"], loc="outside upper center", ncols=4)
    return [
        Picture(
            name="throughput",
            title="Throughput against conflicts",
            figure=figure,
            caption=(
                f"{_CLIENTS} clients per replica, each with one command outstanding, one command "
                "per instance and without the contended-key rule, as in the paper; the bar with "
                "the rule also has batches, as the project runs EPaxos. Diamonds: the paper's "
                "shares (its EPaxos at 0 %: 53,000/s with three replicas, 51,250/s with five). "
                "Where ours differs: the paper's replicas and clients each have a machine, so "
                "Multi-Paxos is bound by its busiest machine, the leader; here all replicas and "
                "the clients share the cores of one machine, so throughput is one over the CPU "
                "that all of them together spend per command, and a leader that works more than "
                "its followers is no bottleneck. Answers wait for execution; the paper's writes "
                "are answered at commit."
            ),
            conditions=conditions(trials(scale), scale, "no latency"),
            rows=rows,
        )
    ]


def _bars(axes: Axes, results: StudyResults, *, relative: bool) -> None:
    width = 0.84 / len(_BARS)
    for at, n in enumerate(_SIZES):
        base = results[_trial(results.scale, n, _BARS[0])].throughput
        papers = THROUGHPUT[n, "epaxos", 0]
        for number, bar in enumerate(_BARS):
            place = at - 0.42 + width * (number + 0.5)
            height = results[_trial(results.scale, n, bar)].throughput
            if relative:
                height = height / max(base, 1e-9) * 100
            label = bar.label if at == 0 else None
            axes.bar(place, height, width, label=label, **bar.look.filled)
            known = THROUGHPUT.get((n, bar.protocol, bar.conflict))
            if relative and known and not (bar.gate and bar.protocol == "epaxos"):
                axes.plot(
                    place,
                    known / papers * 100,
                    marker="D",
                    markersize=3.5,
                    color=style.INK,
                    markerfacecolor="white",
                )
    axes.set_xticks(range(len(_SIZES)), [f"{n} replicas" for n in _SIZES])
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0)


def _rows(results: StudyResults, n: int) -> list[dict[str, Any]]:
    return [
        {
            "replicas": n,
            "series": bar.label,
            "commands_per_s": round(results[_trial(results.scale, n, bar)].throughput),
            "paper_commands_per_s": THROUGHPUT.get((n, bar.protocol, bar.conflict)),
        }
        for bar in _BARS
    ]


STUDY: Final = Study(
    name="what-do-conflicts-cost-in-throughput",
    question="How many commands per second does one machine decide, as more of them conflict?",
    source="SOSP 2013, Figures 5 and 6",
    trials=trials,
    draw=draw,
)
