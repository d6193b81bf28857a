"""The settings of a replica: one TOML file for the whole cluster, environment, flags.

What wins: flags, then EPAXOS_<KEY> in the environment, then the file, then the default. A setting
that is unknown, of the wrong type or out of range is a ConfigError that names the source, the key
and what may stand there.
"""

import difflib
import hashlib
import ipaddress
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from epaxos.core.command import VALUE_BYTES_MAX
from epaxos.core.errors import ConfigError
from epaxos.core.types import REPLICAS_MAX, ReplicaId, replica_name
from epaxos.registry import find_protocol, find_state_machine
from epaxos.runtime.segments import CLUSTER_BYTES_MAX

REGION_BYTES_MAX: Final = 64
"""Of a region's name, which is part of files' names."""
_MIB: Final = 1024 * 1024
_PREFIX: Final = "EPAXOS_"
_MAIN_KEYS: Final = frozenset({"CONFIG", "REPLICA", "DATA"})
"""Variables that are read by the command line, not here."""


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[replicas]]` table; their order is A, B, C, ..."""

    region: str
    """Name of its region in the topology."""
    host: str = "127.0.0.1"
    """Where it listens and where the others reach it."""
    peer_port: int
    """For the other replicas."""
    client_port: int
    """For the binary client protocol; 0 lets the system choose."""
    http_port: int
    """For HTTP; 0 lets the system choose."""


class Cluster(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all replicas of a cluster are told, in one file."""

    cluster: str
    """The cluster's id. A new cluster needs a new one."""
    replicas: list[Member]
    """One to nine."""
    protocol: str = "epaxos"
    """What they agree by."""
    state_machine: str = ""
    """What executes commands, as `package.module:CLASS`. Empty: the key-value store."""
    durability: Literal["fsync", "memory"] = "fsync"
    """`memory` writes nothing; there a replica starts once in a cluster's life."""
    topology: str = ""
    """Name or path: the delays to emulate and the round trips to expect. Empty: none."""
    emulate: bool = False
    """Whether messages between replicas are held back as long as the topology says."""
    seed: int = 1
    """Of everything random: emulated jitter and loss, back-off."""
    leader: str = ""
    """Region or letter of the first leader; only protocols with a leader use it."""
    gate: bool = True
    """Whether commands on contended keys are held back (R12)."""
    admin: bool = False
    """Whether HTTP may change the emulated links."""
    insecure: bool = False
    """Whether hosts other than this one may be listened on: nothing is encrypted or
    authenticated."""
    live_bytes: int = 1024 * _MIB
    """Memory for instances that cannot be forgotten yet; beyond it commands are refused."""
    batch_commands: int = 4096
    """The most commands in one batch; 1 measures agreement without batching."""
    explain_per_s: int = 100
    """At most so many own batches per second are sampled for `epaxos explain`; 0: none."""
    patience_ms: int = 5000
    """How long a request waits for its answer unless the client says otherwise."""
    body_bytes: int = _MIB
    """The largest value that HTTP accepts."""
    grace_ms: int = 5000
    """How long a stop waits for requests in flight."""
    connections: int = 4096
    """Client connections at a time, HTTP and binary each; beyond it they are closed."""
    record: str = ""
    """Directory for traces, one per life of a replica. Empty: nothing is recorded."""
    record_mib: int = 256
    """Where a trace ends, in MiB; the replica goes on."""


class ServeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica is told."""

    cluster: Cluster
    me: ReplicaId
    data: Path | None
    """The data directory; None in memory mode only."""

    @property
    def member(self) -> Member:
        """The own `[[replicas]]` table."""
        return self.cluster.replicas[self.me]


def load_config(
    path: Path,
    replica: str,
    data: Path | None,
    overrides: Mapping[str, Any],
    environment: Mapping[str, str],
) -> ServeConfig:
    """The settings of one replica. `overrides` are flags: keys of `Cluster` to values, None where
    not given. Raises ConfigError."""
    cluster = load_cluster(path, overrides, environment)
    if cluster.durability == "fsync" and data is None:
        raise ConfigError(
            'durability = "fsync" needs a data directory; add --data DIR, or set '
            'durability = "memory"'
        )
    return ServeConfig(cluster=cluster, me=find_member(cluster, replica), data=data)


def load_cluster(
    path: Path, overrides: Mapping[str, Any], environment: Mapping[str, str]
) -> Cluster:
    """The settings of a cluster. Raises ConfigError."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # also numbers and depths that Python refuses
        raise ConfigError(f"{path} is not TOML: {error}") from None
    for key, text in environment.items():
        name = key.removeprefix(_PREFIX)
        if name != key and name not in _MAIN_KEYS and name.lower() in _SCALARS:
            document[name.lower()] = _from_environment(key, text)
    document.update({key: value for key, value in overrides.items() if value is not None})
    cluster = _convert(document, Cluster, str(path))
    _check(cluster, str(path))
    return cluster


def find_member(cluster: Cluster, text: str, what: str = "replica") -> ReplicaId:
    """Which replica a region's name, a letter or a number means. Raises ConfigError, which says
    `what` named it."""
    wanted = text.strip().casefold()
    named = [i for i, m in enumerate(cluster.replicas) if m.region.casefold() == wanted]
    if len(named) == 1:
        return named[0]
    for i in range(len(cluster.replicas)):
        if wanted in (replica_name(i).casefold(), str(i)):
            return i
    choice = ", ".join(f"{replica_name(i)} ({m.region})" for i, m in enumerate(cluster.replicas))
    why = "names several replicas" if named else "is none of the replicas"
    raise ConfigError(f"{what} {text!r} {why}; choose one of {choice}")


def first_leader(cluster: Cluster) -> ReplicaId | None:
    """Who is told to lead at the first start."""
    return find_member(cluster, cluster.leader) if cluster.leader else None


def config_hash(cluster: Cluster) -> str:
    """Equal where every setting that must be the same at all replicas is."""
    same = (
        cluster.protocol,
        cluster.durability,
        cluster.topology,
        cluster.emulate,
        cluster.seed,
        cluster.leader,
        cluster.gate,
        [(m.region, m.host, m.peer_port) for m in cluster.replicas],
        *((cluster.state_machine,) if cluster.state_machine else ()),
    )
    return hashlib.blake2b(msgspec.json.encode(same), digest_size=6).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_SCALARS: Final = {
    field.name: field.type for field in msgspec.structs.fields(Cluster) if field.name != "replicas"
}


def _from_environment(key: str, text: str) -> Any:
    kind = _SCALARS[key.removeprefix(_PREFIX).lower()]
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"environment variable {key} = {text!r}: {_plain(str(error))}") from None


def _convert(document: dict[str, Any], kind: type[Cluster], source: str) -> Cluster:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_sentence(str(error))}") from None


def _plain(message: str) -> str:
    return message.replace("`", "").replace("Expected", "expected")


def _sentence(message: str) -> str:
    """Turn `Expected `int`, got `str` - at `$.a[0].b`` into the order a person wants."""
    what, _, where = message.partition(" - at ")
    where = where.strip("`").removeprefix("$").removeprefix(".")
    unknown = re.search(r"unknown field `(\w+)`", what)
    if unknown:
        kind = Member if where else Cluster
        known = [field.name for field in msgspec.structs.fields(kind)]
        close = difflib.get_close_matches(unknown[1], known, 1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
        return f"{where + '.' if where else ''}{unknown[1]} is not a setting; {hint}"
    missing = re.search(r"missing required field `(\w+)`", what)
    if missing:
        return f"{where + '.' if where else ''}{missing[1]} is missing"
    if what.startswith("Invalid enum value") and where == "durability":
        what = "write fsync or memory"
    return f"{where}: {_plain(what)}"


def _check(cluster: Cluster, source: str) -> None:
    def require(good: bool, sentence: str) -> None:
        if not good:
            raise ConfigError(f"{source}: {sentence}")

    name = cluster.cluster
    require(
        0 < len(name.encode()) <= CLUSTER_BYTES_MAX and name.isprintable(),
        f"cluster = {name!r} must be 1 to {CLUSTER_BYTES_MAX} printable bytes",
    )
    try:
        find_protocol(cluster.protocol)
        find_state_machine(cluster.state_machine)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    n = len(cluster.replicas)
    require(1 <= n <= REPLICAS_MAX, f"replicas: a cluster has 1 to {REPLICAS_MAX} of them, not {n}")
    require(
        not cluster.emulate or bool(cluster.topology),
        'emulate = true needs a topology; add for example topology = "aws-5-2020"',
    )
    for key, low, high in (
        ("live_bytes", _MIB, 1 << 50),
        ("batch_commands", 1, 65_536),
        ("explain_per_s", 0, 1_000_000),
        ("patience_ms", 1, 3_600_000),
        ("grace_ms", 0, 3_600_000),
        ("body_bytes", 1, VALUE_BYTES_MAX),
        ("connections", 1, 1_000_000),
        ("record_mib", 1, 1 << 20),
    ):
        value = getattr(cluster, key)
        require(low <= value <= high, f"{key} = {value} must be between {low} and {high}")
    _check_members(cluster, require)
    if cluster.leader:
        find_member(cluster, cluster.leader, f"{source}: leader =")


def _check_members(cluster: Cluster, require: Any) -> None:
    taken: dict[tuple[str, int], str] = {}
    for i, member in enumerate(cluster.replicas):
        require(bool(member.region), f"replicas[{i}].region is empty")
        require(
            len(member.region.encode()) <= REGION_BYTES_MAX and member.region.isprintable(),
            f"replicas[{i}].region must be {REGION_BYTES_MAX} printable bytes at most",
        )
        loopback = is_loopback(member.host)
        require(
            loopback or cluster.insecure,
            f"replicas[{i}].host = {member.host!r} can be reached from other machines, and nothing "
            "is encrypted or authenticated; if the network is trusted, set insecure = true",
        )
        require(
            loopback or not cluster.emulate,
            f"replicas[{i}].host = {member.host!r}: emulated delays need all replicas on this "
            "machine; set emulate = false",
        )
        for key in ("peer_port", "client_port", "http_port"):
            port = getattr(member, key)
            lowest = 1 if key == "peer_port" else 0
            require(
                lowest <= port <= 65535,
                f"replicas[{i}].{key} = {port} must be between {lowest} and 65535",
            )
            other = taken.get((member.host, port))
            require(
                other is None,
                f"replicas[{i}].{key} = {port} is also {other}; give each its own port",
            )
            if port:
                taken[member.host, port] = f"replicas[{i}].{key}"
