"""Execution latency and fast paths against the share of commands on other regions' keys.

Rules of this file: each region has keys of its own; `remote` percent of its commands are on those
of another.
"""

from typing import Any, Final

from bench.analysis.statistics import stated_percentile
from bench.drawing import style
from bench.drawing.draw import gaps
from bench.figures.plan import Picture, PooledTrials, Scale, Study, StudyResults, conditions
from bench.figures.studies.how_long_is_the_tail import over_loads
from bench.trials.trial import Trial

_REMOTE: Final = (0, 10, 25, 50, 100)
_KEYS: Final = 4
_RATE: Final = 20.0


def _workload(remote: int) -> str:
    return f"local:remote={remote},keys={_KEYS}"


def _series(scale: Scale) -> list[tuple[str, style.Look, list[Trial]]]:
    return over_loads(scale, [(_workload(remote), _RATE) for remote in _REMOTE])


def trials(scale: Scale) -> list[Trial]:
    """Every share of remote commands."""
    return [trial for _, _, trials in _series(scale) for trial in trials]


def draw(results: StudyResults) -> list[Picture]:
    """Medians and tails on the left, fast paths on the right."""
    scale = results.scale
    figure = style.make(style.PAGE_IN, 2.7)
    latency, fast = figure.subplots(1, 2, width_ratios=(1.5, 1))
    rows = []
    for label, look, trials_of in _series(scale):
        pools = [results[trial] for trial in trials_of]
        medians = [stated_percentile(pool.answer_ms(), 50) for pool in pools]
        tails = [stated_percentile(pool.answer_ms(), 99) for pool in pools]
        latency.plot(_REMOTE, gaps(medians), label=f"{label}: median", **look.plotted)
        late = look.but(line=":").plotted | {"markerfacecolor": "white"}
        latency.plot(_REMOTE, gaps(tails), label="99th percentile", **late)
        if look is not style.MULTIPAXOS:
            fast.plot(_REMOTE, [pool.fast_share * 100 for pool in pools], **look.plotted)
        rows += [_row(label, remote, pool) for remote, pool in zip(_REMOTE, pools)]
    style.letter(latency, "a", "execution latency, all regions")
    style.letter(fast, "b", "fast paths")
    latency.set_ylim(0)
    latency.set_ylabel("ms")
    fast.set_ylim(0, 103)
    fast.set_ylabel("% of commands")
    for axes in (latency, fast):
        axes.set_xlabel("commands on another region's keys, %")
    style.legend_above(figure, latency, 3)
    return [
        Picture(
            name="locality",
            title="What locality buys",
            figure=figure,
            caption=(
                f"Each region has {_KEYS} keys of its own, chosen evenly; so many percent of its "
                "commands are on the keys of other regions. While regions keep to their own keys "
                "EPaxos never leaves the fast path; each remote command may meet one at home. "
                "With the contended-key rule a command also waits for one of its own region that "
                "is under way on its key. "
                "Median and 99th percentile of all regions together. EPaxos Revisited calls its "
                "results highly sensitive to the workload; this is our measure of it, no curve of "
                "that paper."
            ),
            conditions=conditions(trials(scale), scale, "execution latency"),
            rows=rows,
        )
    ]


def _row(label: str, remote: int, pool: PooledTrials) -> dict[str, Any]:
    return {
        "series": label,
        "remote_percent": remote,
        "commands": len(pool.samples),
        "fast_share": round(pool.fast_share, 4) if pool.trial.protocol == "epaxos" else None,
        "met_share": round(pool.conflict_share, 4),
        "answer_p50_ms": stated_percentile(pool.answer_ms(), 50),
        "answer_p99_ms": stated_percentile(pool.answer_ms(), 99),
    }


STUDY: Final = Study(
    name="what-does-locality-buy",
    question="How much does it help if regions keep to keys of their own?",
    source="EPaxos Revisited (NSDI 2021), sensitivity to the workload",
    trials=trials,
    draw=draw,
)
