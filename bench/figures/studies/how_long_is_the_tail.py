"""Tails of commit and execution latency under Zipf keys and open load: EPaxos Revisited, NSDI 2021.

Rules of this file: open loop, latency from the intended start; execution beside commit; with the
contended-key rule and without.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from bench.analysis.statistics import stated_percentile
from bench.drawing import style
from bench.drawing.draw import tail, tail_axes
from bench.figures.plan import Picture, PooledTrials, Scale, Study, StudyResults, conditions
from bench.trials.trial import Trial

MATRIX: Final = "epaxos-revisited"
_WORKLOADS: Final = (("zipf:theta=0.9,keys=1000000", 0.9), ("zipf:theta=0.99,keys=1000000", 0.99))
_RATES: Final = (20.0, 60.0)
_LEAST: Final = 1e-3
_COMMANDS: Final = 150
"""Per region and trial, about; with fewer a trial is SUSPECT."""


def epaxos(scale: Scale, workload: str, rate: float, *, gate: bool) -> Trial:
    """EPaxos at the sites of EPaxos Revisited, open loop; longer at low rates, for enough commands
    per region. Without the rule clients wait as long as it takes: a command may be executed only
    when the load is over."""
    duration_s = max(scale.simulated_s, _COMMANDS / rate)
    return Trial(
        protocol="epaxos",
        topology=MATRIX,
        workload=workload,
        rate=rate,
        duration_s=duration_s,
        durability="memory",
        gate=gate,
        patience_s=Trial.patience_s if gate else Trial.patience_s + duration_s,
        simulated=True,
    )


def multipaxos(scale: Scale, workload: str, rate: float, leader: str = "best") -> Trial:
    """Multi-Paxos under the same load."""
    trial = epaxos(scale, workload, rate, gate=True)
    return replace(trial, protocol="multipaxos", leader=leader)


def over_loads(
    scale: Scale, loads: Sequence[tuple[str, float]]
) -> list[tuple[str, style.Look, list[Trial]]]:
    """EPaxos with the contended-key rule and without it, and Multi-Paxos with its best leader: each
    under every workload at its rate."""
    return [
        ("EPaxos", style.EPAXOS, [epaxos(scale, *load, gate=True) for load in loads]),
        (
            "EPaxos without the rule",
            style.EPAXOS_UNSAFE,
            [epaxos(scale, *load, gate=False) for load in loads],
        ),
        (
            "Multi-Paxos, best leader",
            style.MULTIPAXOS,
            [multipaxos(scale, *load) for load in loads],
        ),
    ]


def _series(scale: Scale, workload: str, rate: float) -> list[tuple[str, Trial, style.Look]]:
    return [
        ("EPaxos", epaxos(scale, workload, rate, gate=True), style.EPAXOS),
        (
            "EPaxos without the rule",
            epaxos(scale, workload, rate, gate=False),
            style.EPAXOS_UNSAFE.but(line="-"),
        ),
        ("Multi-Paxos, best leader", multipaxos(scale, workload, rate), style.MULTIPAXOS),
        (
            "Multi-Paxos, worst leader",
            multipaxos(scale, workload, rate, "worst"),
            style.MULTIPAXOS_WORST,
        ),
    ]


def trials(scale: Scale) -> list[Trial]:
    """Every workload and rate."""
    return [
        trial
        for workload, _ in _WORKLOADS
        for rate in _RATES
        for _, trial, _ in _series(scale, workload, rate)
    ]


def draw(results: StudyResults) -> list[Picture]:
    """A panel per workload and rate."""
    scale = results.scale
    figure = style.make(style.PAGE_IN, 4.6)
    panels = figure.subplots(len(_WORKLOADS), len(_RATES), sharey=True, sharex=True)
    rows = []
    for i, (workload, theta) in enumerate(_WORKLOADS):
        for j, rate in enumerate(_RATES):
            axes = panels[i][j]
            style.letter(
                axes, "abcd"[i * len(_RATES) + j], f"Zipf θ = {theta}, {rate:g}/s per region"
            )
            for label, trial, look in _series(scale, workload, rate):
                pool = results[trial]
                tail(axes, pool.answer_ms(), look, label, least=_LEAST)
                if trial.protocol == "epaxos":
                    commit = look.but(line=":")
                    tail(axes, pool.commit_ms(), commit, f"{label}: commit", least=_LEAST)
                rows.append(_row(label, theta, pool))
            tail_axes(axes, least=_LEAST)
            axes.grid(visible=True, axis="x")
            if i == len(_WORKLOADS) - 1:
                axes.set_xlabel("ms")
            if j == 0:
                axes.set_ylabel("commands that took longer")
            axes.set_xlim(left=0)
    style.legend_above(figure, panels[0][0], 3)
    return [
        Picture(
            name="tails",
            title="Tails of execution and commit under Zipf keys",
            figure=figure,
            caption=(
                "Share of commands, of all regions together, that took longer than so many ms. "
                "Solid: execution, when the client has its answer. Dotted: commit. Marks at 50, "
                "10, 1 and 0.1 %. Medians are those of one round trip; a command on a popular key "
                "waits for what is under way on it, so the tail grows with skew and load. EPaxos "
                "Revisited reports a tail of more than four times that of Multi-Paxos (its "
                f"abstract; its own curves were not read, so none is drawn){_ours(results)}. "
                "Without the rule, as there, execution waits for chains of dependencies; with it a "
                "command waits before it is proposed, and its commit tail is nearly that of its "
                "execution. At these rates the rule lengthens the tail somewhat; it pays on a "
                "hotter key (what-does-load-do-to-a-hot-key). A million keys instead of the "
                "billion that is the default of that paper's program; puts only."
            ),
            conditions=conditions(trials(scale), scale, "execution and commit latency"),
            rows=rows,
        )
    ]


def _ours(results: StudyResults) -> str:
    """The same ratio here, where there are enough commands for it."""
    workload, theta = _WORKLOADS[-1]
    rate = _RATES[-1]
    trials_of = [trial for _, trial, _ in _series(results.scale, workload, rate)]
    _, free, led, _ = [stated_percentile(results[trial].answer_ms(), 99) for trial in trials_of]
    if free is None or led is None:
        return ""
    return (
        f"; here it is {free / led:.1f} times that of the best leader at the 99th percentile, "
        f"without the rule, θ = {theta:g} and {rate:g}/s"
    )


def _row(label: str, theta: float, pool: PooledTrials) -> dict[str, Any]:
    answers, commits = pool.answer_ms(), pool.commit_ms()
    return {
        "series": label,
        "theta": theta,
        "rate": pool.trial.rate,
        "commands": len(answers),
        "answered_share": round(pool.answered_share, 4),
        "fast_share": round(pool.fast_share, 4) if pool.trial.protocol == "epaxos" else None,
        "commit_p50_ms": stated_percentile(commits, 50),
        "commit_p99_ms": stated_percentile(commits, 99),
        "answer_p50_ms": stated_percentile(answers, 50),
        "answer_p99_ms": stated_percentile(answers, 99),
        "answer_max_ms": float(answers.max()) if len(answers) else None,
    }


STUDY: Final = Study(
    name="how-long-is-the-tail",
    question="How much later than the median are the unlucky commands answered?",
    source="EPaxos Revisited (NSDI 2021), execution latency under Zipf keys",
    trials=trials,
    draw=draw,
)
