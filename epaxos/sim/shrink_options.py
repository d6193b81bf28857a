"""Makes a failing run smaller by its options, while a run of them violates the same sentence.

For sentences about what must happen in the end: no finite schedule violates them, so there is
nothing to cut out of one. A run with other options is another run: each gets a few seeds.

Rules of this file: owns no clock: `more` says whether to go on.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

from epaxos.node.node import Node
from epaxos.registry import ProtocolSpec
from epaxos.sim.check.checkers import ASSERTION, RAISES, Violation
from epaxos.sim.options import Faults, RunOptions
from epaxos.sim.run import simulate
from epaxos.sim.schedule.simplify import RTT_US

SEEDS_TRIED = 4
"""How many seeds, besides its own, smaller options get to fail in."""


def shrink_options(
    options: RunOptions,
    spec: ProtocolSpec | None,
    node: type[Node],
    violated: str,
    more: Callable[[], bool] = lambda: True,
) -> RunOptions:
    """The smallest options found under which a run violates `violated`."""
    best = options
    tried = {best}
    improved = True
    while improved and more():
        improved = False
        for change in _changes():
            smaller = change(best)
            if smaller == best:
                continue
            for seed in (best.seed, *range(1, SEEDS_TRIED + 1)):
                each = replace(smaller, seed=seed)
                if each in tried or not more():
                    continue
                tried.add(each)
                if _violates(each, spec, node, violated):
                    best, improved = each, True
                    break
    return best


def _violates(
    options: RunOptions, spec: ProtocolSpec | None, node: type[Node], violated: str
) -> bool:
    try:
        simulate(options, spec, node)
    except Violation as violation:
        return violation.property == violated
    except Exception as error:
        return violated == (ASSERTION if isinstance(error, AssertionError) else RAISES)
    return False


Change = Callable[[RunOptions], RunOptions]


def _changes() -> Iterator[Change]:
    """Each makes one thing smaller, or nothing if it is small already; the most telling first."""
    calm = RunOptions()
    yield lambda options: replace(options, faults=calm.faults)
    yield lambda options: replace(options, commands=max(1, options.commands // 4))
    yield lambda options: replace(options, commands=max(1, options.commands // 2))
    yield _fewer_replicas
    for each in fields(Faults):
        yield _without_fault(each.name)
    for name in ("rest", "transfers", "limits", "tunables", "memory", "gate", "order", "lag_us"):
        yield _calm(name)
    for name in ("hot", "rtt_error", "jitter_us", "leader", "patience_us"):
        yield _calm(name)
    for name in ("conditions", "same_argument"):
        yield _calm(name)
    yield lambda options: replace(options, keys=1)
    yield lambda options: replace(options, active_us=max(100_000, options.active_us // 2))
    yield _plain_delays
    yield lambda options: replace(options, commands=max(1, options.commands - 1))


def _without_fault(name: str) -> Change:
    calm = getattr(Faults(), name)

    def change(options: RunOptions) -> RunOptions:
        without: dict[str, Any] = {name: calm}
        return replace(options, faults=replace(options.faults, **without))

    return change


def _calm(name: str) -> Change:
    calm = getattr(RunOptions(), name)

    def change(options: RunOptions) -> RunOptions:
        without: dict[str, Any] = {name: calm}
        return replace(options, **without)

    return change


def _fewer_replicas(options: RunOptions) -> RunOptions:
    """Two less, the last ones; three stay."""
    n = options.replicas - 2
    if n < 3:
        return options
    faults = replace(options.faults, dead=min(options.faults.dead, (n - 1) // 2))
    return replace(
        options,
        replicas=n,
        delays_us=tuple(row[:n] for row in options.delays_us[:n]),
        leader=min(options.leader, n - 1),
        rest=min(options.rest, (n - 1) // 2),
        faults=faults,
    )


def _plain_delays(options: RunOptions) -> RunOptions:
    n = options.replicas
    delays = tuple(tuple(0 if i == j else RTT_US // 2 for j in range(n)) for i in range(n))
    return replace(options, delays_us=delays)
