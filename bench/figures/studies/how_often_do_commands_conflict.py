"""How often the fast path is lost, against configured conflicts and skew (EPaxos Revisited).

Rules of this file: what was configured is on the x axis, what happened on the y axis.
"""

from typing import Any, Final

from bench.drawing import style
from bench.figures.plan import Picture, PooledTrials, Scale, Study, StudyResults, conditions
from bench.figures.studies.how_long_is_the_tail import epaxos
from bench.trials.trial import Trial

_CONFLICTS: Final = (0, 2, 10, 25, 50, 100)
_THETAS: Final = (0.5, 0.7, 0.8, 0.9, 0.99)
_RATES: Final = (5.0, 20.0)
_LOOKS: Final = {
    (5.0, True): style.EPAXOS,
    (20.0, True): style.EPAXOS.but(colour=style.SHADES[3], marker="D"),
    (5.0, False): style.EPAXOS_UNSAFE,
    (20.0, False): style.EPAXOS_UNSAFE.but(colour=style.SHADES[1], marker="P"),
}


def _conflict(scale: Scale, percent: int, rate: float, *, gate: bool) -> Trial:
    return epaxos(scale, f"conflict:{percent}", rate, gate=gate)


def _zipf(scale: Scale, theta: float, rate: float, *, gate: bool) -> Trial:
    return epaxos(scale, f"zipf:theta={theta:g},keys=1000000", rate, gate=gate)


def trials(scale: Scale) -> list[Trial]:
    """Both kinds of workload, every rate, with the rule and without."""
    return [
        trial
        for rate, gate in _LOOKS
        for trial in (
            *(_conflict(scale, percent, rate, gate=gate) for percent in _CONFLICTS),
            *(_zipf(scale, theta, rate, gate=gate) for theta in _THETAS),
        )
    ]


def draw(results: StudyResults) -> list[Picture]:
    """Conflict rates on the left, Zipf keys on the right; realised conflicts above."""
    scale = results.scale
    figure = style.make(style.PAGE_IN, 4.2)
    (met, met_zipf), (slow, slow_zipf) = figure.subplots(2, 2, sharex="col")
    rows = []
    for (rate, gate), look in _LOOKS.items():
        label = f"{rate:g}/s per region{'' if gate else ', without the rule'}"
        by_conflict = [results[_conflict(scale, c, rate, gate=gate)] for c in _CONFLICTS]
        by_theta = [results[_zipf(scale, theta, rate, gate=gate)] for theta in _THETAS]
        for places, pools, above, below in (
            (_CONFLICTS, by_conflict, met, slow),
            (_THETAS, by_theta, met_zipf, slow_zipf),
        ):
            shares = [pool.conflict_share * 100 for pool in pools]
            above.plot(places, shares, label=label, **look.plotted)
            below.plot(places, [_slow(pool) for pool in pools], **look.plotted)
            rows += [_row(pool) for pool in pools]
    style.letter(met, "a", "commands that met another")
    style.letter(met_zipf, "b", "the same, Zipf keys")
    style.letter(slow, "c", "slow paths")
    style.letter(slow_zipf, "d", "the same, Zipf keys")
    met.set_ylabel("% of commands")
    slow.set_ylabel("% of commands")
    for axes in (met, slow):
        axes.set_ylim(-3, 105)
    for axes in (met_zipf, slow_zipf):
        axes.set_ylim(-0.5, max(5.0, met_zipf.get_ylim()[1]))
    slow.set_xlabel("configured conflicts, %")
    slow_zipf.set_xlabel("skew θ over 1,000,000 keys")
    met.plot((0, 100), (0, 100), color=style.SOFT, linewidth=0.6)
    style.legend_above(figure, met, 2)
    return [
        Picture(
            name="conflicts",
            title="Configured conflicts, and those that happen",
            figure=figure,
            caption=(
                "A command meets another when one of another region is under way on its key; the "
                "thin line is what was configured. The share depends on the rate: the fewer "
                "commands per second, the fewer meet. (c, d) A meeting costs the fast path only if "
                "the replicas of a quorum see the two in different orders. Note the scale of (b) "
                "and (d). The contended-key rule changes when commands on a hot key are proposed "
                "more than how many of them take the slow path. EPaxos Revisited "
                "says that conflict rates depend on load and skew and are to be reported, not "
                "configured; it gives no numbers that were read here. Its clock-ordered variant "
                "(TOQ) is not part of this project."
            ),
            conditions=conditions(trials(scale), scale, "no latency"),
            rows=rows,
        )
    ]


def _slow(pool: PooledTrials) -> float:
    return (1 - pool.fast_share) * 100 if pool.samples else float("nan")


def _row(pool: PooledTrials) -> dict[str, Any]:
    return {
        "workload": pool.trial.workload,
        "rate": pool.trial.rate,
        "rule": pool.trial.gate,
        "commands": len(pool.samples),
        "answered_share": round(pool.answered_share, 4),
        "met_share": round(pool.conflict_share, 4),
        "fast_share": round(pool.fast_share, 4),
    }


STUDY: Final = Study(
    name="how-often-do-commands-conflict",
    question="How many commands really meet another, and how many lose the fast path by it?",
    source="EPaxos Revisited (NSDI 2021), conflict rate",
    trials=trials,
    draw=draw,
)
