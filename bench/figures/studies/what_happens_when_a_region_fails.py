"""Answers over time around the death of one replica (SOSP 2013, Figure 10's question).

Rules of this file: open loop, so that what nobody answers is seen; the region that dies is the
leader's.
"""

from typing import Final

from matplotlib.lines import Line2D

from bench.drawing import style
from bench.drawing.timeline import draw_curve, shade
from bench.figures.over_time import answers_per_s, medians
from bench.figures.plan import Picture, Scale, Study, StudyResults, conditions
from bench.trials.trial import Trial

_MATRIX: Final = "sosp13-figure4"
_SITES: Final = ("CA", "VA", "OR", "JP", "EU")
_DEAD: Final = "CA"
_FROM_S, _UNTIL_S, _LENGTH_S = 4.0, 12.0, 18.0
_BIN_S: Final = 0.5


def _trial(protocol: str, leader: str = "best") -> Trial:
    return Trial(
        protocol=protocol,
        topology=_MATRIX,
        leader=leader,
        workload="conflict:0",
        rate=40.0,
        duration_s=_LENGTH_S,
        faults=(f"crash:{_DEAD}@{_FROM_S:g}-{_UNTIL_S:g}",),
        durability="fsync",
        simulated=True,
    )


_CASES: Final = (
    ("EPaxos", _trial("epaxos")),
    (f"Multi-Paxos, leader {_DEAD} (dies)", _trial("multipaxos", _DEAD)),
    ("Multi-Paxos, leader OR (lives)", _trial("multipaxos", "OR")),
)


def trials(scale: Scale) -> list[Trial]:
    """A timeline has its own length, whatever the scale says."""
    return [trial for _, trial in _CASES]


def draw(results: StudyResults) -> list[Picture]:
    """A column per case: answers per second above, medians below."""
    figure = style.make(style.PAGE_IN, 3.9)
    grid = figure.subplots(2, len(_CASES), sharex=True, sharey="row")
    rows = []
    for column, (title, trial) in enumerate(_CASES):
        pool = results[trial]
        above, below = grid[0][column], grid[1][column]
        style.letter(above, "abc"[column], title)
        for axes in (above, below):
            shade(axes, pool.outcomes[0].events, _LENGTH_S)
        rates = answers_per_s(pool, None, _BIN_S)
        above.step(rates.at_s, rates.values, where="mid", color=style.INK, linewidth=1)
        rows += [
            {"case": title, "site": "all", "at_s": at, "answers_per_s": rate}
            for at, rate in zip(rates.at_s, rates.values)
        ]
        for number, site in enumerate(_SITES):
            look = style.Look(style.REGIONS[number], style.REGION_MARKERS[number])
            answered = medians(pool, site, _BIN_S)
            draw_curve(below, answered, look)
            rows += [
                {"case": title, "site": site, "at_s": at, "median_ms": value}
                for at, value in zip(answered.at_s, answered.values)
            ]
        below.set_xlabel("s")
    grid[0][0].set_ylabel("answers/s, all regions")
    grid[1][0].set_ylabel("median latency, ms")
    for first in (grid[0][0], grid[1][0]):
        first.set_ylim(0)
    handles = [
        Line2D([], [], label=site, **style.Look(colour, marker).plotted)
        for site, colour, marker in zip(_SITES, style.REGIONS, style.REGION_MARKERS)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(_SITES))
    drawn = trials(results.scale)
    return [
        Picture(
            name="timeline",
            title=f"{_DEAD} dies and returns",
            figure=figure,
            caption=(
                f"Answers per second of all regions' clients, by when they were answered, and each "
                f"region's median latency by when it was asked, in steps of {_BIN_S:g} s. Shaded: "
                f"the replica in {_DEAD} is dead; its own clients have nobody to ask. With EPaxos "
                "every other region goes on; commands whose quorum lost its nearest member wait "
                "for the next nearest. With Multi-Paxos nobody is answered anywhere between the "
                "death of the leader and the election of the next (b); while the leader lives it "
                "goes on like EPaxos (c). "
                "The paper shows three replicas in one data centre and its own time-outs; ours are "
                "five regions with the default time-outs of this project."
            ),
            conditions=conditions(drawn, results.scale, "execution latency"),
            rows=rows,
        )
    ]


STUDY: Final = Study(
    name="what-happens-when-a-region-fails",
    question="Who notices when one replica dies and returns?",
    source="SOSP 2013, its figure on failures",
    trials=trials,
    draw=draw,
)
