"""`epaxos kv`: one command against a running cluster, and how it went.

A value goes to stdout and nothing else does, so that `$(epaxos kv get x)` works; how it went goes
to stderr. A missing key, a conflict and an unknown outcome end with exit code 1.
"""

import asyncio
import base64
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

import topology
from epaxos.cli.exits import ExitCode
from epaxos.cli.options import ClusterFile, Json, Timeout
from epaxos.cli.output import milliseconds, print_json, printable
from epaxos.client import (
    Answer,
    EPaxosClient,
    InvalidArgument,
    Unavailable,
    check_size,
    parse_address,
)
from epaxos.codec import ServerHello
from epaxos.core.command import (
    NO_VERSION,
    Operation,
    Status,
    Version,
    encode_cas,
    format_version,
    parse_version,
)
from epaxos.core.errors import AddressError, Ambiguous, ConfigError, Definite
from epaxos.core.types import REPLICAS_MAX, replica_name

app = typer.Typer(help="Get, put, delete or compare-and-set a key.")

DEFAULT_ADDRESSES: Final = [f"127.0.0.1:{7101 + i}" for i in range(REPLICAS_MAX)]
"""Where `epaxos up` puts client ports unless told otherwise."""

Key = Annotated[str, typer.Argument(metavar="KEY", help="The key.", show_default=False)]
Value = Annotated[
    str | None, typer.Argument(metavar="VALUE", help="The value; - reads stdin to its end.")
]
Via = Annotated[
    str | None,
    typer.Option(
        metavar="REGION", help="Ask the replica of this region, by name, title or letter."
    ),
]
At = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", help="Client port to ask; by default a cluster of `epaxos up`."
    ),
]


class KvTarget(NamedTuple):
    """Whom to ask."""

    addresses: list[str]
    cluster: str
    via: str | None


class KvAnswer(NamedTuple):
    """What one command came to."""

    operation: Operation
    key: bytes
    answer: Answer
    elapsed_us: int
    """As measured here, the connection not included."""


@app.command()
def get(
    key: Key,
    via: Via = None,
    at: At = None,
    cluster: ClusterFile = None,
    timeout: Timeout = 5.0,
    json: Json = False,
) -> None:
    """Print the value of a key."""
    outcome = _run(Operation.GET, key, b"", _target(via, at, cluster), timeout)
    if outcome.answer.status is Status.OK and not json:
        sys.stdout.buffer.write(outcome.answer.value + b"\n")
        sys.stdout.flush()
    _finish(outcome, json)


@app.command()
def put(
    key: Key,
    value: Value,
    via: Via = None,
    at: At = None,
    cluster: ClusterFile = None,
    timeout: Timeout = 5.0,
    json: Json = False,
) -> None:
    """Write a key."""
    content = _content(value)
    assert content is not None
    _finish(_run(Operation.PUT, key, content, _target(via, at, cluster), timeout), json)


@app.command()
def delete(
    key: Key,
    via: Via = None,
    at: At = None,
    cluster: ClusterFile = None,
    timeout: Timeout = 5.0,
    json: Json = False,
) -> None:
    """Remove a key."""
    _finish(_run(Operation.DELETE, key, b"", _target(via, at, cluster), timeout), json)


@app.command()
def cas(
    key: Key,
    value: Value = None,
    expect: Annotated[
        str | None, typer.Option(metavar="VALUE", help="Only if the key holds this value.")
    ] = None,
    expect_version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Only if it holds this very write.")
    ] = None,
    expect_any: Annotated[bool, typer.Option("--expect-any", help="Only if it exists.")] = False,
    expect_none: Annotated[
        bool, typer.Option("--expect-none", help="Only if it does not exist.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove the key instead of writing VALUE.")
    ] = False,
    via: Via = None,
    at: At = None,
    cluster: ClusterFile = None,
    timeout: Timeout = 5.0,
    json: Json = False,
) -> None:
    """Write or remove a key if it is as expected (compare-and-set).

    Give exactly one --expect… option. A conflict changes nothing, says what the key holds, and
    ends with exit code 1."""
    if remove == (value is not None):
        raise ConfigError("give either a VALUE to write or --remove")
    wanted = _expectation(expect, expect_version, expect_any, expect_none)
    argument = encode_cas(wanted, _content(value))
    _finish(_run(Operation.CAS, key, argument, _target(via, at, cluster), timeout), json)


def _expectation(
    value: str | None, version: str | None, present: bool, absent: bool
) -> bool | Version | bytes:
    if [value is not None, version is not None, present, absent].count(True) != 1:
        raise ConfigError(
            "give exactly one of --expect VALUE, --expect-version VERSION, --expect-any, "
            "--expect-none"
        )
    if value is not None:
        return os.fsencode(value)
    if version is not None:
        try:
            return parse_version(version)
        except ValueError as error:
            raise ConfigError(f"--expect-version: {error}") from None
    return present


def _content(value: str | None) -> bytes | None:
    if value == "-":
        return sys.stdin.buffer.read()
    return None if value is None else os.fsencode(value)


def _target(via: str | None, at: str | None, file: Path | None) -> KvTarget:
    if at is not None and file is not None:
        raise ConfigError("give --at or --cluster, not both")
    if at is not None:
        try:
            parse_address(at)
        except ConfigError as error:
            raise ConfigError(f"--at: {error}") from None
        return KvTarget([at], "", via)
    if file is None:
        return KvTarget(DEFAULT_ADDRESSES, "", via and region_name(via, topology.DEFAULT))
    from epaxos.runtime.config import find_member, load_cluster

    cluster = load_cluster(file, {}, os.environ)
    members = cluster.replicas
    if via is not None:
        members = [members[find_member(cluster, region_name(via, cluster.topology))]]
    return KvTarget([f"{m.host}:{m.client_port}" for m in members], cluster.cluster, None)


def region_name(text: str, spec: str) -> str:
    """`JP` for `Tokyo`: what replicas call the region that a person knows by its title."""
    try:
        regions = topology.find(spec).regions
    except topology.TopologyError:
        return text
    known = {region.title.casefold(): region.name for region in regions}
    known |= {region.name.casefold(): region.name for region in regions}
    return known.get(text.casefold(), text)


def _run(operation: Operation, key: str, argument: bytes, to: KvTarget, timeout: float) -> KvAnswer:
    name = os.fsencode(key)
    try:
        check_size(name, argument)
        return asyncio.run(_execute(operation, name, argument, to, timeout))
    except Unavailable as error:
        if error.code == "unreachable":
            raise AddressError(str(error)) from None
        raise Definite(f"nothing was changed ({error.code}): {error}") from None
    except InvalidArgument as error:
        raise ConfigError(str(error)) from None
    except Ambiguous as error:
        raise Ambiguous(f"outcome unknown: {error}") from None


async def _execute(
    operation: Operation, key: bytes, argument: bytes, to: KvTarget, timeout_s: float
) -> KvAnswer:
    address = await _choose(to)
    async with EPaxosClient([address], to.cluster, timeout=timeout_s) as client:
        await client.greet()
        begin = time.perf_counter_ns()
        answer = await client.execute(operation, key, argument)
        return KvAnswer(operation, key, answer, (time.perf_counter_ns() - begin) // 1000)


async def _choose(to: KvTarget) -> str:
    """The first address that answers, or that of the region asked for. Raises AddressError."""
    async with EPaxosClient(to.addresses, to.cluster) as client:
        said = await client.greet()
    present = {a: hello for a, hello in said.items() if isinstance(hello, ServerHello)}
    if not present and to.addresses is DEFAULT_ADDRESSES:
        raise AddressError(
            f"no replica answers on {to.addresses[0]} … {to.addresses[-1].partition(':')[2]}; "
            "start a cluster with `epaxos up`, or name a replica with --at HOST:PORT"
        )
    if not present:
        reasons = "; ".join(f"{address}: {reason}" for address, reason in said.items())
        raise AddressError(f"no replica answers: {reasons}")
    if to.via is None:
        return next(iter(present))
    wanted = to.via.casefold()
    for names in (
        {address: hello.region for address, hello in present.items()},
        {address: replica_name(hello.replica) for address, hello in present.items()},
    ):  # a region's name comes before another one's letter
        for address, name in names.items():
            if wanted == name.casefold():
                return address
    known = ", ".join(f"{replica_name(h.replica)} ({h.region})" for h in present.values())
    raise ConfigError(f"--via {to.via}: no such region answers; choose one of {known}")


def _finish(outcome: KvAnswer, json: bool) -> None:
    answer = outcome.answer
    if json:
        print_json(_document(outcome))
    else:
        key = printable(outcome.key)
        if answer.status is Status.OK:
            removed = outcome.operation is Operation.DELETE
            said = ("removed version " if removed else "version ") + format_version(answer.version)
        elif answer.status is Status.MISSING or answer.version == NO_VERSION:
            said = f"{key} has no value"
        else:
            said = (
                f"conflict, nothing was changed: {key} holds {printable(answer.value)!r}, version "
                f"{format_version(answer.version)}"
            )
        print(f"{said}   ({_how(outcome)})", file=sys.stderr)
    if answer.status is not Status.OK:
        raise typer.Exit(ExitCode.FAILED)


def _how(outcome: KvAnswer) -> str:
    answer = outcome.answer
    return (
        f"{answer.instance} by the {answer.path.name.lower()} path at {answer.region}, "
        f"commit {milliseconds(answer.commit_us)} ms, answer {milliseconds(outcome.elapsed_us)} ms"
    )


def _document(outcome: KvAnswer) -> dict[str, Any]:
    answer = outcome.answer
    document: dict[str, Any] = {
        "operation": outcome.operation.name.lower(),
        "key": printable(outcome.key),
        "status": answer.status.name.lower(),
        "version": None if answer.version == NO_VERSION else format_version(answer.version),
    }
    if answer.version != NO_VERSION and (
        outcome.operation is Operation.GET or answer.status is Status.CONFLICT
    ):
        document.update(_value(answer.value))
    return document | {
        "instance": str(answer.instance),
        "path": answer.path.name.lower(),
        "replica": replica_name(answer.replica),
        "region": answer.region,
        "commit_ms": answer.commit_us / 1000,
        "execute_ms": answer.execute_us / 1000,
        "answer_ms": outcome.elapsed_us / 1000,
    }


def _value(value: bytes) -> dict[str, str]:
    try:
        return {"value": value.decode()}
    except UnicodeDecodeError:
        return {"value_base64": base64.b64encode(value).decode()}
