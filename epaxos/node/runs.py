"""Runs of commands: what is wrong with one, how several make a batch, which answers are whose.

Apart from `requests`, which changes with what drivers and clients say; this changes with what a
command and a batch are.

Rules of this file: pure functions over columns; no protocol, no time.
"""

from epaxos.core.command import (
    Batch,
    Operation,
    Results,
    decode_cas,
    oversize,
)
from epaxos.core.errors import CodecError
from epaxos.core.types import ReplicaId
from epaxos.node.requests import Run


def fault_of(operations: bytes, keys: list[bytes], arguments: list[bytes]) -> str | None:
    """What is wrong with a client's columns, in a sentence. Who joins requests asks before."""
    if not len(keys) == len(operations) == len(arguments):
        return "operations, keys and arguments must be columns of equal length"
    if not keys:
        return "a request needs at least one command"
    if operations.translate(None, _CODES):
        return f"operation codes are 0 to {max(_CODES)}"
    if _CAS in operations:
        for code, argument in zip(operations, arguments):
            if code == _CAS:
                try:
                    decode_cas(argument)
                except CodecError as error:
                    return str(error)
    return None


def oversize_in(run: Run, payload_bytes: int) -> str | None:
    """Why one of its commands cannot be proposed for its size, not even in a batch of its own."""
    for key, argument in zip(run.keys, run.arguments):
        if (fault := oversize(key, argument, payload_bytes)) is not None:
            return fault
    return None


def batch_of(origin: ReplicaId, number: int, runs: list[Run]) -> Batch:
    """One batch with the commands of some runs, in their order."""
    if len(runs) == 1:
        run = runs[0]
        return Batch(origin, number, run.operations, run.keys, run.arguments)
    keys: list[bytes] = []
    arguments: list[bytes] = []
    for run in runs:
        keys += run.keys
        arguments += run.arguments
    return Batch(origin, number, b"".join([run.operations for run in runs]), keys, arguments)


def slice_of(results: Results, start: int, count: int) -> Results:
    """The results of some neighbouring commands; `start` counts from the first of `results`."""
    index = results.index + start
    if not results.statuses:
        return Results(results.replica, results.slot, index, count, b"", [], [])
    stop = start + count
    return Results(
        results.replica,
        results.slot,
        index,
        count,
        results.statuses[start:stop],
        results.values[start:stop],
        results.versions[start:stop],
    )


_CAS = int(Operation.CAS)
_CODES = bytes(Operation)
