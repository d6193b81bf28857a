"""The museum of bugs: known and feared mistakes, planted from outside, each found by its search.

`EXHIBITS` has them all, by theme; `find` one by its name.
"""

from difflib import get_close_matches

from epaxos.core.errors import ConfigError
from epaxos.sim.museum import (
    admission,
    ballots,
    clients,
    durability,
    execution,
    forgetting,
    multipaxos,
    patience,
    quorums,
    recovery,
    waiting,
)
from epaxos.sim.museum.exhibit import Exhibit

EXHIBITS: tuple[Exhibit, ...] = (
    *ballots.EXHIBITS,
    *quorums.EXHIBITS,
    *recovery.EXHIBITS,
    *waiting.EXHIBITS,
    *durability.EXHIBITS,
    *execution.EXHIBITS,
    *forgetting.EXHIBITS,
    *admission.EXHIBITS,
    *clients.EXHIBITS,
    *patience.EXHIBITS,
    *multipaxos.EXHIBITS,
)


def find(name: str) -> Exhibit:
    """The exhibit of that name. Raises ConfigError that says which are near."""
    for exhibit in EXHIBITS:
        if exhibit.name == name:
            return exhibit
    near = get_close_matches(name, [exhibit.name for exhibit in EXHIBITS], 3, 0.4)
    hint = f"did you mean {', '.join(near)}?" if near else "`epaxos museum` lists them"
    raise ConfigError(f"the museum has no {name!r}; {hint}")
