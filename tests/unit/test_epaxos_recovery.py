"""The recoverer's three pure decisions, line by line of the paper."""

import pytest

from epaxos.core.command import Batch, Payload
from epaxos.core.quorum import quorums
from epaxos.protocols.epaxos.instance import Phase
from epaxos.protocols.epaxos.messages import Vote
from epaxos.protocols.epaxos.recovery import Action, Objector, decide, judge, settle

N = 5
ZERO = (0,) * N
X = Payload.of(Batch(0, 1, b"\1", [b"x"], [b"v"]))
Y = Payload.of(Batch(0, 2, b"\1", [b"x"], [b"w"]))
D0 = (0, 1, 0, 0, 0)
MORE = (0, 1, 2, 0, 0)


def initial():
    return Vote(1, Phase.INITIAL, 0, None, (), None)


def preaccepted(deps=D0, initial_deps=D0):
    return Vote(1, Phase.PREACCEPTED, 0, X, deps, initial_deps)


def accepted(ballot, payload=X, deps=D0):
    return Vote(1, Phase.ACCEPTED, ballot, payload, deps, None)


def committed(payload=X, deps=D0):
    return Vote(1, Phase.COMMITTED, 17, payload, deps, None)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        # 1: committed wins over everything, whatever its ballot and whoever says it
        ({1: accepted(40, Y), 2: committed(), 3: initial()}, (Action.COMMIT, "1", X, D0)),
        ({0: committed(None, ZERO), 1: initial(), 2: initial()}, (Action.COMMIT, "1", None, ZERO)),
        # 2: the accepted value of the highest ballot, also when the command leader answered
        ({1: accepted(17, Y), 2: accepted(33, X), 3: initial()}, (Action.ACCEPT, "2", X, D0)),
        ({0: accepted(0, X), 2: initial(), 3: initial()}, (Action.ACCEPT, "2", X, D0)),
        (
            {1: accepted(17, None, ZERO), 2: preaccepted(), 3: preaccepted()},
            (Action.ACCEPT, "2", None, ZERO),
        ),
        # 3: the command leader answered and has neither accepted nor committed
        ({0: preaccepted(), 1: preaccepted(), 2: preaccepted()}, (Action.ACCEPT, "3", None, ZERO)),
        # 4: enough votes equal the initial deps
        ({1: preaccepted(), 2: initial(), 3: initial()}, (Action.VALIDATE, "4", X, D0)),
        ({1: preaccepted(), 2: preaccepted(MORE), 3: initial()}, (Action.VALIDATE, "4", X, D0)),
        # 5: too few
        (
            {1: preaccepted(MORE), 2: preaccepted(MORE), 3: initial()},
            (Action.ACCEPT, "5", None, ZERO),
        ),
        ({1: initial(), 2: initial(), 3: initial()}, (Action.ACCEPT, "5", None, ZERO)),
    ],
)
def test_decide(votes, expected):
    assert decide(0, votes, quorums(N).e, N)[:4] == expected


def test_decide_counts_matching_pre_accepts_only():
    introduced = Vote(1, Phase.INITIAL, 0, X, (), D0)
    votes = {1: preaccepted(), 2: introduced, 3: preaccepted()}
    assert decide(0, votes, 2, N).matching == 2


def test_decide_needs_two_matching_of_seven():
    """n = 7: |Q| - e = 4 - 2."""
    zero = (0,) * 7
    one = Vote(1, Phase.PREACCEPTED, 0, X, zero, zero)
    votes = {1: one, 2: initial(), 3: initial(), 4: initial()}
    assert decide(0, votes, 2, 7).rule == "5"
    assert decide(0, {**votes, 2: one}, 2, 7).rule == "4"


QUORUM = (1, 2, 3)


@pytest.mark.parametrize(
    ("objections", "matching", "rule"),
    [
        ({}, 1, "V1"),
        ({(2, 4): True}, 3, "V2"),
        ({(2, 4): False, (3, 1): True}, 1, "V2"),
        ({(4, 1): False}, 1, "V3"),
        ({(2, 1): False, (4, 1): False}, 1, "V3"),
        ({(4, 1): False}, 2, "V4"),
        ({(2, 1): False}, 1, "V4"),
    ],
)
def test_judge(objections, matching, rule):
    decision = judge(objections, QUORUM, matching, X, D0, quorums(N).e)
    assert decision.rule == rule
    if rule == "V1":
        assert (decision.action, decision.payload, decision.deps) == (Action.ACCEPT, X, D0)
    elif rule == "V4":
        assert decision.action is Action.WAIT
        assert decision.matching == matching
    else:
        assert (decision.action, decision.payload, decision.deps) == (Action.ACCEPT, None, ZERO)


OPEN = Objector(False, False, 0)
SETTLED = Objector(True, False, 0)
REFUTES = Objector(False, True, 0)


@pytest.mark.parametrize(
    ("objectors", "late", "expected"),
    [
        ([REFUTES, OPEN], {}, (Action.ACCEPT, "W1", None)),
        ([SETTLED, SETTLED], {}, (Action.ACCEPT, "W2", X)),
        ([SETTLED, OPEN], {}, (Action.WAIT, "V4", X)),
        ([Objector(False, False, 1)], {}, (Action.WAIT, "V4", X)),
        ([Objector(False, False, 2)], {}, (Action.ACCEPT, "W3", None)),
        ([OPEN], {4: committed()}, (Action.COMMIT, "W4", X)),
        ([OPEN], {4: accepted(17, Y)}, (Action.ACCEPT, "W4", Y)),
        ([OPEN], {0: preaccepted()}, (Action.ACCEPT, "W4", None)),
        ([OPEN], {4: preaccepted()}, (Action.WAIT, "V4", X)),
        ([REFUTES], {4: committed()}, (Action.COMMIT, "W4", X)),
    ],
)
def test_settle(objectors, late, expected):
    decision = settle(objectors, late, 0, X, D0, quorums(N))
    assert (decision.action, decision.rule, decision.payload) == expected
