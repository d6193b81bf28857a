"""One command as its client saw it, in the world and in a schedule alike.

A version in an answer names the write that made the value, so the state of a key is judged as value
and version together. Where a command of unknown outcome was executed is what the observer of
executions saw; one that was executed nowhere has done nothing, and is left out.

A client that tries again sends a new command, perhaps with an argument that it has sent before: it
may run as often as it was sent. What the system submits again must run once.

Rules of this file: times are whatever the caller counts in, as long as later is more. A definite
failure is left out of a history; an unknown outcome stays in it without an end.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from epaxos.core.command import (
    NO_VERSION,
    Among,
    Cas,
    Expectation,
    Operation,
    Status,
    Version,
    decode_cas,
    format_version,
)
from epaxos.core.types import InstanceId, ReplicaId, replica_name
from epaxos.node.requests import Reply
from epaxos.sim.check.checkers import (
    HONEST,
    ONCE,
    VERSIONED,
    ExecutionChecker,
    Place,
    Violation,
)
from epaxos.sim.check.linearizability import Op, State


@dataclass
class Call:
    """One command of a client."""

    replica: ReplicaId
    operation: int
    key: bytes
    argument: bytes
    called: int
    returned: int | None = None
    result: object = None
    version: Version = NO_VERSION
    """What the answer says."""
    failed: bool = False
    """It definitely did not happen."""
    place: Place | None = None
    """Where it was executed: as its answer says, or, of unknown outcome, as was seen."""
    settled: bool = False
    """The client knows its fate, or has given up."""

    @property
    def kind(self) -> str:
        """As an operation of a history calls it."""
        return Operation(self.operation).name.lower()

    def answered(self, reply: Reply, index: int, now: int) -> None:
        """The `index`-th command of the reply's run was this one."""
        results = reply.results
        self.settled = True
        self.returned = now
        self.result = _result_of(self, reply, index)
        self.place = ((results.replica, results.slot), results.index + index)
        self.version = _version_of(self.place)
        if results.statuses:
            self.version = results.versions[index]

    def written(self) -> bytes | None:
        """The value that it leaves if it takes effect; None: no value."""
        if self.operation == Operation.PUT:
            return self.argument
        return decode_cas(self.argument).value if self.operation == Operation.CAS else None


def _result_of(call: Call, reply: Reply, index: int) -> object:
    results = reply.results
    if not results.statuses:
        return True
    status = results.statuses[index]
    if call.operation == Operation.GET:
        return None if status == Status.MISSING else results.values[index]
    if call.operation == Operation.CAS:
        if status == Status.OK:
            return True
        return (False, results.values[index] if results.versions[index][1] else None)
    return status == Status.OK


def _version_of(place: Place) -> Version:
    return (*place[0], place[1])


def _state(value: bytes, version: Version) -> bytes:
    return value + b" @" + format_version(version).encode()


# Fates -------------------------------------------------------------------------------------------


def check_fates(calls: Iterable[Call], executions: ExecutionChecker) -> None:
    """Every command was executed once if it was answered, at most once if its outcome is unknown,
    and never if it was refused as definitely not done. Of unknown ones it notes the place.

    Commands sent to one replica with one argument are told apart by their answers alone. Raises
    Violation."""
    groups: dict[tuple[ReplicaId, bytes], list[Call]] = {}
    for call in calls:
        if call.operation != Operation.GET and call.argument:
            groups.setdefault((call.replica, call.argument), []).append(call)
    for (member, argument), group in groups.items():
        told = [call.place for call in group if call.returned is not None]
        places = executions.places_of(member, argument)
        for place in told:
            if place is not None and place not in places:
                raise Violation(
                    VERSIONED,
                    f"{argument!r} of {group[0].key!r} was answered as command {place[1]} of "
                    f"{InstanceId(*place[0])}, which is another",
                )
        left = [place for place in places if place not in told]
        unknown = [call for call in group if call.returned is None and not call.failed]
        if len(set(told)) < len(told) or len(left) > len(unknown):
            refused = any(call.failed for call in group)
            where = " and in ".join(str(InstanceId(*place[0])) for place in left)
            raise Violation(
                HONEST if refused else ONCE,
                f"{argument!r} of {group[0].key!r}, sent {len(group)} times to "
                f"{replica_name(member)}, was {'refused' if refused else 'answered'} "
                f"and executed in {where or 'one place'}",
            )
        # Nobody knows which of them it was that was executed: each may have been the first.
        for call, place in zip(unknown, left):
            call.place = place
            call.called = min(each.called for each in unknown)


# Histories ---------------------------------------------------------------------------------------


def histories(calls: Iterable[Call]) -> dict[bytes, list[tuple[Call, Op]]]:
    """What was seen, per key. `check_fates` has looked at the calls. Raises Violation where the
    answer of a write names another write."""
    by_key: dict[bytes, list[Call]] = {}
    for call in calls:
        blind = call.operation == Operation.DELETE and not call.argument  # no place is known of it
        if not call.failed and (call.place is not None or blind):
            by_key.setdefault(call.key, []).append(call)
    return {key: _history(found) for key, found in by_key.items()}


def _history(calls: list[Call]) -> list[tuple[Call, Op]]:
    states: dict[Version, State] = {NO_VERSION: None}
    values: dict[Version, bytes] = {}
    for call in calls:
        value = call.written()
        if call.place is not None and value is not None:
            version = _version_of(call.place)
            states[version], values[version] = _state(value, version), value
    return [(call, _operation(call, states, values)) for call in calls]


def _operation(call: Call, states: Mapping[Version, State], values: Mapping[Version, bytes]) -> Op:
    """A call as an operation on the state of its key."""
    kind, result, place = call.kind, call.result, call.place
    value, known = call.written(), call.returned is not None
    expect: State | frozenset[State] = None
    if kind == "get":
        result = _state(result, call.version) if isinstance(result, bytes) else None
    elif kind == "delete" and known and result is True:
        # Its answer says what it removed.
        kind, expect = "cas", states.get(call.version, _state(b"?", call.version))
    elif kind == "cas":
        cas = decode_cas(call.argument)
        expect = _expected(cas, states, values)
        if isinstance(result, tuple):
            met = result[1]
            result = (False, _state(met, call.version) if isinstance(met, bytes) else None)
        elif known and cas.value is None:
            expect &= {states.get(call.version, _state(b"?", call.version))}
        if len(expect) == 1:
            (expect,) = expect
    written = None
    if value is not None:
        assert place is not None, "only what was executed is judged"
        version = _version_of(place)
        written = _state(value, version)
        if known and result is True and call.version != version:
            raise Violation(
                VERSIONED,
                f"{call.argument!r} of {call.key!r} was executed in {InstanceId(*place[0])} and "
                f"answered with {format_version(call.version)}",
            )
    return Op(kind, written, expect, call.called, call.returned, result)


def _expected(
    cas: Cas, states: Mapping[Version, State], values: Mapping[Version, bytes]
) -> frozenset[State]:
    """The states in which a compare-and-set takes effect."""
    meets = _meets(cas.expect)
    return frozenset(
        state for version, state in states.items() if meets(version, values.get(version))
    )


def _meets(expect: Expectation) -> Callable[[Version, bytes | None], bool]:
    if isinstance(expect, bool):
        return lambda version, value: expect is (value is not None)
    if isinstance(expect, Among):
        return lambda version, value: (
            (value is not None and version in expect.versions) is not expect.excluded
        )
    if isinstance(expect, bytes):
        return lambda version, value: value == expect
    return lambda version, value: value is not None and version == expect
