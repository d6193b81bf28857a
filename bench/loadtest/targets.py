"""Commands as HTTP requests, and what the answers mean: for EPaxos, and for etcd's JSON gateway.

Requests are whole octet strings, made with as little work as possible: a load generator that needs
its processor for itself measures itself.

Rules of this file: it sends nothing; it knows nothing of Locust.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote_from_bytes

from epaxos.core.command import (
    Among,
    Operation,
    Version,
    decode_cas,
    format_version,
    parse_version,
)
from epaxos.core.errors import ConfigError
from epaxos.workload import Command

_NAMES: Final = {
    Operation.GET: "GET",
    Operation.PUT: "PUT",
    Operation.DELETE: "DELETE",
    Operation.CAS: "CAS",
}
_MS: Final = r"(\d{1,12}(?:\.\d+)?)"
_TIMING: Final = re.compile(rf"commit;dur={_MS}, *exec;dur={_MS}(?=,|$)")
_NEW: Final = "If-None-Match: *"
_REVISION: Final = re.compile(rb'"mod_?[rR]evision": ?"(\d+)"')
_HEADER_REVISION: Final = re.compile(rb'"revision":"?(\d+)"?')
_VALUE: Final = re.compile(rb'"value":"([^"]*)"')
_PROBLEM_TITLE: Final = re.compile(rb'"title": ?"([^"]{1,80})"')


class HttpRequest(NamedTuple):
    """One request."""

    operation: str
    """PUT, GET, DELETE or CAS: its name in statistics."""
    method: str
    octets: bytes
    """Head and body."""


class Meaning(NamedTuple):
    """What an answer says."""

    operation: str
    """Its name in statistics: the request's, or `CAS 412`."""
    failure: str = ""
    """What went wrong, in words that many answers share; empty: it succeeded."""
    path: str = ""
    """How the instance was decided: fast, slow, recovered or leader."""
    waited_us: int = -1
    """From commit to execution; -1: the answer does not say."""
    found: str = ""
    """The version of what a GET read, as the server writes it; empty: the key had no value."""


class Told(NamedTuple):
    """For a history: what a good answer says."""

    result: bytes | bool | None
    """Of a GET what it found; else whether the write took effect."""
    version: Version | None = None
    """Of what was found, written or met; None: the answer does not say."""
    met_nothing: bool = False
    """A conditional write was not done, and the key had no value."""


Header = Callable[[str], str | None]
"""The value of a header of an answer, by its name in small letters."""


class LoadTarget(Protocol):
    """A kind of server."""

    status_path: str
    """Answers 200 where the server takes commands."""

    def request(self, command: Command, found: str | None = None) -> HttpRequest:
        """The request for a command. With `found`, what the GET before it read, the second half of
        a read-modify-write becomes a CAS that expects just that. Raises ConfigError."""
        ...

    def meaning(self, request: HttpRequest, status: int, header: Header, body: bytes) -> Meaning:
        """What an answer to it says."""
        ...

    def told(self, request: HttpRequest, status: int, header: Header, body: bytes) -> Told:
        """What a good answer says, for a history."""
        ...

    def version(self, found: str) -> Version:
        """The version in `Meaning.found`."""
        ...

    def is_definite(self, status: int) -> bool:
        """Whether an answer that is no good one says that nothing happened."""
        ...


def make_target(name: str, host: str) -> LoadTarget:
    """By the name of `--target`; `host` goes into the requests' Host header."""
    return Epaxos(host) if name == "epaxos" else Etcd(host)


class Epaxos:
    """`/v1/kv/{key}` with raw bodies and conditions; a missing key is an answer."""

    status_path = "/readyz"

    def __init__(self, host: str) -> None:
        head = f" HTTP/1.1\r\nHost: {host}\r\n".encode("ascii")
        self._bare = head + b"\r\n"
        self._conditional = head
        self._with_body = head + b"Content-Length: "

    def request(self, command: Command, found: str | None = None) -> HttpRequest:
        operation = command.operation
        path = b"/v1/kv/" + quote_from_bytes(command.key, safe="").encode("ascii")
        if operation == Operation.PUT:
            value = command.argument
            if command.modifies and found is not None:
                return self._conditional_write(path, f"If-Match: {found}" if found else _NEW, value)
            octets = b"PUT %s%s%d\r\n\r\n%s" % (path, self._with_body, len(value), value)
            return HttpRequest("PUT", "PUT", octets)
        if operation == Operation.GET:
            return HttpRequest("GET", "GET", b"GET " + path + self._bare)
        if operation == Operation.DELETE:
            return HttpRequest("DELETE", "DELETE", b"DELETE " + path + self._bare)
        return self._cas(path, command.argument)

    def _cas(self, path: bytes, argument: bytes) -> HttpRequest:
        operands = decode_cas(argument)
        expect = operands.expect
        if isinstance(expect, bytes):
            raise ConfigError("HTTP compares versions, not values: choose another workload")
        if isinstance(expect, bool):
            condition = "If-Match: *" if expect else _NEW
        elif isinstance(expect, Among):
            name = "If-None-Match" if expect.excluded else "If-Match"
            tags = ", ".join(f'"{format_version(each)}"' for each in expect.versions)
            condition = f"{name}: {tags}"
        else:
            condition = f'If-Match: "{format_version(expect)}"'
        return self._conditional_write(path, condition, operands.value)

    def _conditional_write(self, path: bytes, condition: str, value: bytes | None) -> HttpRequest:
        method = "PUT" if value is not None else "DELETE"
        value = value or b""
        octets = b"%s %s%s%s\r\nContent-Length: %d\r\n\r\n%s" % (
            method.encode("ascii"),
            path,
            self._conditional,
            condition.encode("ascii"),
            len(value),
            value,
        )
        return HttpRequest("CAS", method, octets)

    def meaning(self, request: HttpRequest, status: int, header: Header, body: bytes) -> Meaning:
        operation = request.operation
        if status == 412:
            operation = f"{operation} 412"
        elif status != 200 and not (status == 404 and operation in ("GET", "DELETE")):
            return Meaning(operation, f"{status} {_title(body)}".strip())
        waited_us = -1
        timing = _TIMING.match(header("server-timing") or "")
        if timing is not None:
            committed, executed = timing.groups()
            waited_us = max(0, round((float(executed) - float(committed)) * 1000))
        found = (header("etag") or "") if operation == "GET" else ""
        return Meaning(operation, "", header("x-epaxos-path") or "", waited_us, found)

    def told(self, request: HttpRequest, status: int, header: Header, body: bytes) -> Told:
        tag = header("etag") if status in (200, 412) else None
        version = self.version(tag) if tag else None
        if request.operation == "GET":
            return Told(body if status == 200 else None, version)
        return Told(status == 200, version, met_nothing=status == 412 and not tag)

    def version(self, found: str) -> Version:
        return parse_version(found.strip('"'))

    def is_definite(self, status: int) -> bool:
        return 400 <= status < 500 or status == 503


def _title(body: bytes) -> str:
    """Of a problem document."""
    found = _PROBLEM_TITLE.search(body)
    return found[1].decode("utf-8", "replace") if found else ""


class Etcd:
    """etcd's `/v3/kv/*`: JSON in which keys and values are base64. A conditional write is a
    transaction."""

    status_path = "/health"

    def __init__(self, host: str) -> None:
        self._middle = (
            f" HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: "
        ).encode("ascii")

    def request(self, command: Command, found: str | None = None) -> HttpRequest:
        operation = command.operation
        key = b64encode(command.key)
        if operation == Operation.PUT:
            value = b64encode(command.argument)
            if command.modifies and found is not None:
                return self._transaction(key, _equal(found), value)
            return self._post("PUT", b"/v3/kv/put", b'{"key":"%s","value":"%s"}' % (key, value))
        if operation == Operation.GET:
            return self._post("GET", b"/v3/kv/range", b'{"key":"%s"}' % key)
        if operation == Operation.DELETE:
            return self._post("DELETE", b"/v3/kv/deleterange", b'{"key":"%s"}' % key)
        operands = decode_cas(command.argument)
        if not isinstance(operands.expect, bool):
            raise ConfigError(
                "--target etcd can only compare whether a key exists: choose another workload"
            )
        condition = b'"result":"GREATER","createRevision":"0"' if operands.expect else _equal("")
        new = None if operands.value is None else b64encode(operands.value)
        return self._transaction(key, condition, new)

    def _transaction(self, key: bytes, condition: bytes, value: bytes | None) -> HttpRequest:
        target = b"CREATE" if b"createRevision" in condition else b"MOD"
        write = b'{"requestDeleteRange":{"key":"%s"}}' % key
        if value is not None:
            write = b'{"requestPut":{"key":"%s","value":"%s"}}' % (key, value)
        compare = b'{"key":"%s","target":"%s",%s}' % (key, target, condition)
        transaction = b'{"compare":[%s],"success":[%s]}' % (compare, write)
        return self._post("CAS", b"/v3/kv/txn", transaction)

    def _post(self, operation: str, path: bytes, body: bytes) -> HttpRequest:
        octets = b"POST %s%s%d\r\n\r\n%s" % (path, self._middle, len(body), body)
        return HttpRequest(operation, "POST", octets)

    def meaning(self, request: HttpRequest, status: int, header: Header, body: bytes) -> Meaning:
        operation = request.operation
        if status != 200:
            return Meaning(operation, f"{status}")
        found = ""
        if operation == "GET":
            revision = _REVISION.search(body)
            found = revision[1].decode("ascii") if revision else ""
        elif operation == "CAS" and b'"succeeded":true' not in body.replace(b" ", b""):
            operation = "CAS 412"  # what etcd's gateway does not mention is false
        return Meaning(operation, found=found)

    def told(self, request: HttpRequest, status: int, header: Header, body: bytes) -> Told:
        squeezed = body.replace(b" ", b"")
        if request.operation == "GET":
            value, revision = _VALUE.search(squeezed), _REVISION.search(squeezed)
            if revision is None:
                return Told(None)
            # What the gateway does not mention is empty.
            found = b64decode(value[1]) if value else b""
            return Told(found, self.version(revision[1].decode("ascii")))
        if request.operation == "DELETE":
            return Told(b'"deleted":' in squeezed and b'"deleted":"0"' not in squeezed)
        is_done = request.operation == "PUT" or b'"succeeded":true' in squeezed
        written = _HEADER_REVISION.search(squeezed) if is_done else None
        return Told(is_done, self.version(written[1].decode("ascii")) if written else None)

    def version(self, found: str) -> Version:
        return (0, int(found), 0)  # a revision is of the whole store, and that has one column

    def is_definite(self, status: int) -> bool:
        return False


def _equal(found: str) -> bytes:
    """The condition that a key still has this revision; empty: that it has no value."""
    if not found:
        return b'"result":"EQUAL","createRevision":"0"'
    return b'"result":"EQUAL","modRevision":"%s"' % found.encode("ascii")
