"""Execution latency against load on one key that all regions write (EPaxos Revisited; SOSP 2013).

Rules of this file: open loop, so that what is never answered shows; with the contended-key rule
and without, because the difference is the figure.
"""

from typing import Any, Final

from matplotlib.axes import Axes

from bench.analysis.statistics import stated_percentile
from bench.drawing import style
from bench.drawing.draw import gaps, plain_log
from bench.figures.plan import Picture, PooledTrials, Scale, Study, StudyResults, conditions
from bench.figures.studies.how_long_is_the_tail import over_loads
from bench.trials.trial import Trial

_WORKLOAD: Final = "conflict:100"
_RATES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
_TAIL_PERCENT: Final = 95
_SOON_MS: Final = 1000


def _series(scale: Scale) -> list[tuple[str, style.Look, list[Trial]]]:
    return over_loads(scale, [(_WORKLOAD, rate) for rate in _RATES])


def trials(scale: Scale) -> list[Trial]:
    """Every rate."""
    return [trial for _, _, trials in _series(scale) for trial in trials]


def draw(results: StudyResults) -> list[Picture]:
    """Median, tail, and the share that was answered."""
    scale = results.scale
    figure = style.make(style.PAGE_IN, 2.7)
    median, late, answered = figure.subplots(1, 3)
    rows = []
    for label, look, trials_of in _series(scale):
        pools = [results[trial] for trial in trials_of]
        for axes, percent in ((median, 50), (late, _TAIL_PERCENT)):
            answers = [stated_percentile(pool.answer_ms(), percent) for pool in pools]
            axes.plot(_RATES, gaps(answers), label=label, **look.plotted)
            if look is style.EPAXOS or look is style.EPAXOS_UNSAFE:
                commits = [stated_percentile(pool.commit_ms(), percent) for pool in pools]
                commit = look.but(line=":").plotted | {"markerfacecolor": "white"}
                axes.plot(_RATES, gaps(commits), label=f"{label}: commit", **commit)
        answered.plot(_RATES, [_soon(pool) for pool in pools], **look.plotted)
        rows += [_row(label, pool) for pool in pools]
    style.letter(median, "a", "median")
    style.letter(late, "b", f"{_TAIL_PERCENT}th percentile")
    style.letter(answered, "c", f"answered within {_SOON_MS / 1000:g} s")
    for axes in (median, late):
        plain_log(axes, "y", (50, 100, 200, 500, 1000, 2000, 5000, 20_000))
        axes.set_ylim(50, max(6000.0, axes.get_ylim()[1]))
        axes.set_ylabel("ms")
    answered.set_ylim(0, 105)
    answered.set_ylabel("% of commands")
    for axes in (median, late, answered):
        _rates(axes)
    style.legend_above(figure, median, 3)
    drawn = trials(scale)
    return [
        Picture(
            name="hot-key",
            title="All regions write one key",
            figure=figure,
            caption=(
                "Solid and dashed: execution, when the client has its answer; dotted with hollow "
                "marks: commit. Without the rule, as in the papers, each new command depends on "
                "those under way, so chains of dependencies never end while the load lasts; from "
                "some rate on hardly anything is executed before the load ends, and latency grows "
                "with the length of the run: EPaxos's known livelock, which both papers' clients "
                "avoid by waiting for commits or by few outstanding commands. With the rule "
                "commands on the contended key wait, leave together, and latency stays bounded. Up "
                "to some commands per second without the rule is the faster one. Multi-Paxos "
                "does not notice which keys are written."
            ),
            conditions=conditions(drawn, scale, "execution and commit latency"),
            rows=rows,
        )
    ]


def _soon(pool: PooledTrials) -> float:
    """Percent of the commands."""
    answers = pool.answer_ms()
    return float((answers <= _SOON_MS).mean() * 100) if len(answers) else 0.0


def _rates(axes: Axes) -> None:
    plain_log(axes, "x", _RATES)
    axes.set_xlabel("commands/s per region")


def _row(label: str, pool: PooledTrials) -> dict[str, Any]:
    return {
        "series": label,
        "rate": pool.trial.rate,
        "commands": len(pool.samples),
        "within_1_s_percent": round(_soon(pool), 2),
        "fast_share": round(pool.fast_share, 4) if pool.trial.protocol == "epaxos" else None,
        "commit_p50_ms": stated_percentile(pool.commit_ms(), 50),
        "commit_p95_ms": stated_percentile(pool.commit_ms(), 95),
        "answer_p50_ms": stated_percentile(pool.answer_ms(), 50),
        "answer_p95_ms": stated_percentile(pool.answer_ms(), 95),
    }


STUDY: Final = Study(
    name="what-does-load-do-to-a-hot-key",
    question="What does open load on one key do to execution, with and without the rule?",
    source="EPaxos Revisited (NSDI 2021), open load; SOSP 2013, 100 % conflicts",
    trials=trials,
    draw=draw,
)
