"""What objects to a Validate: the live index finds exactly what the definition says."""

import random

import pytest

from epaxos.core.command import Batch, Operation, Payload, interferes
from epaxos.protocols.epaxos.instance import COMMITTED
from epaxos.protocols.epaxos.messages import Accept, Commit, Objection, PreAccept, Progress
from tests.unit.builders import replica

N = 5
ME = 4
KEYS = [b"a", b"b", b"c", b"d"]


def batch(rng, column, slot):
    keys = rng.sample(KEYS, rng.randint(1, 3))
    codes = bytes(int(rng.choice((Operation.GET, Operation.PUT))) for _ in keys)
    values = [b"" if code == int(Operation.GET) else b"v" for code in codes]
    return Payload.of(Batch(column, slot, codes, keys, values))


def vector(rng, most=12):
    return tuple(rng.randint(0, most) for _ in range(N))


def defined(made, asked, payload, deps):
    """Every live instance, one after the other (protocol reference 1.6, l.81-87)."""
    found = []
    for column, instances in enumerate(made.columns.instances):
        for slot, each in sorted(instances.items()):
            if each is asked or slot <= max(deps[column], made.columns.floor[column]):
                continue
            committed = each.phase == COMMITTED
            theirs = each.payload if committed else each.initial_payload
            their_deps = each.deps if committed else each.initial_deps
            if theirs is None or their_deps is None or asked.slot <= their_deps[asked.replica]:
                continue
            if interferes(payload.footprint, theirs.footprint):
                found.append(Objection(column, slot, committed))
    return found


@pytest.mark.parametrize("seed", range(60))
def test_objections_are_those_of_the_definition(seed):
    """Instances are pre-accepted, accepted (as Nop too, and then otherwise), decided and forgotten
    in any order, and questions come in between."""
    rng = random.Random(seed)
    made = replica(ME, N)
    batches = {(c, s): batch(rng, c, s) for c in range(4) for s in range(1, 13)}
    asks = 0
    for now in range(1, 160):
        (column, slot), payload = rng.choice(sorted(batches.items(), key=lambda each: each[0]))
        kind = rng.randrange(5)
        value, deps = rng.choice(((payload, vector(rng)), (None, (0,) * N)))
        if kind == 0:
            made.receive(column, PreAccept(column, slot, payload, vector(rng)), now)
        elif kind == 1:
            owner = rng.randrange(4)
            ballot = rng.randint(1, 5) * 16 + owner
            made.receive(owner, Accept(column, slot, ballot, value, deps), now)
        elif kind == 2 and rng.random() < 0.5:
            made.receive(column, Commit(column, slot, value, deps), now)
        elif kind == 3 and rng.random() < 0.1:
            low = (rng.randint(0, 3),) * 4 + (0,)
            if all(made.columns.committed[c] >= low[c] for c in range(4)):
                made.executed(low, now)
                for member in range(4):
                    zero = (0,) * N
                    made.receive(member, Progress(low, low, low, zero, now, zero), now)
        elif slot > made.columns.floor[column]:
            asked = made.columns.obtain(column, slot)
            deps = vector(rng)
            assert made._objections(asked, payload, deps) == defined(made, asked, payload, deps)
            asks += 1
    assert asks > 20


class Counted(dict):
    """A column that counts how often somebody looks at an instance."""

    looks = 0

    def get(self, *arguments):
        self.looks += 1
        return super().get(*arguments)


def test_a_question_costs_what_conflicts_not_what_lives():
    made = replica(ME, N)
    for slot in range(1, 2001):
        key = b"x" if slot == 700 else b"%d" % slot
        payload = Payload.of(Batch(0, slot, b"\1", [key], [b"v"]))
        made.receive(0, PreAccept(0, slot, payload, (0,) * N), slot)
    asked = made.columns.obtain(1, 1)
    payload = Payload.of(Batch(1, 1, b"\1", [b"x"], [b"v"]))
    made._objections(asked, payload, (0,) * N)
    made.columns.instances[0] = column = Counted(made.columns.instances[0])
    assert made._objections(asked, payload, (0,) * N) == [Objection(0, 700, False)]
    assert column.looks == 1
