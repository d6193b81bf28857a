"""What an HTTP request says beside its body: target, parameters, host and conditions.

Rules of this file: everything here is read once, strictly, before anything happens. What does not
fit is a ConfigError that names the field; nothing is guessed, and nothing is ignored.
"""

import ipaddress
import re
from collections.abc import Collection
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from aiohttp import web

from epaxos.core.command import Among, Expectation, Version, parse_version
from epaxos.core.errors import ConfigError
from epaxos.core.numbers import cut, parse_whole

_SINGLE: Final = ("Host", "Content-Length", "Transfer-Encoding", "X-Request-Id")
"""Headers of one value: what a second one means nobody can know (RFC 9110, 5.3)."""
_ABSOLUTE: Final = re.compile(r"http://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/\s]*)(?::([0-9]*))?")
_TAG: Final = re.compile(r'(W/)?"([!#-~\x80-\U0010ffff]*)"')
"""An entity tag (RFC 9110, 8.8.3)."""
_MEMBER: Final = re.compile(r'(?:[^,"]|"[^"]*"?)+')
"""Of a list of tags: what is quoted may have commas in it."""


class RequestTarget(NamedTuple):
    """The target of a request, read once."""

    path: str
    """Begins with a slash; still percent-encoded."""
    query: str
    host: str | None
    """Name or address in lower case, without port and a trailing dot; None: nothing names one."""


def read_target(request: web.BaseRequest) -> RequestTarget:
    """Path, query and host, from `/path` with the Host header or from `http://host/path`, which is
    what a client sends that takes us for a proxy (RFC 9112, 3.2). Raises ConfigError."""
    for name in _SINGLE:
        if len(request.headers.getall(name, ())) > 1:
            raise ConfigError(f"the header {name} stands there more than once; send one")
    if request.headers.get("Transfer-Encoding", "chunked").strip().lower() != "chunked":
        raise ConfigError("Transfer-Encoding may be chunked alone; a value is stored as it comes")
    text = request.raw_path
    authority, what = request.headers.get("Host"), "the header Host"
    if not text.startswith("/"):
        absolute = _ABSOLUTE.fullmatch(text)
        if absolute is None:
            raise ConfigError(f"the target {cut(text)} is neither a path nor http://HOST:PORT/PATH")
        authority, what, text = absolute[1], "the target's host", absolute[2]
        if not text.startswith("/"):
            text = f"/{text}"
    path, _, query = text.partition("?")
    return RequestTarget(path, query, None if authority is None else _host(authority, what))


def read_parameters(query: str, known: Collection[str]) -> dict[str, str]:
    """The parameters of a query, each given once and known to its route. Raises ConfigError."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, errors="backslashreplace"):
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise ConfigError(f"unknown query parameter {cut(name)}; {takes}")
        if name in found:
            raise ConfigError(f"the query parameter {name} is given more than once")
        found[name] = value
    return found


def read_limit(parameters: dict[str, str], default: int, most: int) -> int:
    """The parameter `limit`. Raises ConfigError."""
    try:
        return parse_whole(parameters["limit"], 1, most) if "limit" in parameters else default
    except ValueError as error:
        raise ConfigError(f"the query parameter limit = {error}") from None


def read_request_name(request: web.BaseRequest, longest: int) -> str | None:
    """What the client calls its request, at most so much of it. Raises ConfigError: it is shown to
    others, in JSON."""
    name = request.headers.get("X-Request-Id")
    if name is None:
        return None
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ConfigError("the header X-Request-Id must be UTF-8") from None
    return name[:longest]


class Tags(NamedTuple):
    """What If-Match or If-None-Match names."""

    everything: bool
    """`*`: any version."""
    tags: tuple[tuple[bool, str], ...] = ()
    """Each one's weakness, and the text between its quotes."""

    def has(self, version: str, *, weak: bool) -> bool:
        """Whether a version is named; the strong comparison knows no weak tags (RFC 9110,
        8.8.3.2)."""
        return (
            self.everything
            or (False, version) in self.tags
            or (weak and (True, version) in self.tags)
        )


def read_tags(request: web.BaseRequest, name: str) -> Tags | None:
    """The tags in a header, which may stand on several lines; None: it is not there. Raises
    ConfigError."""
    lines = request.headers.getall(name, ())
    if not lines:
        return None
    text = ", ".join(lines).strip()
    if text == "*":
        return Tags(everything=True)
    found: list[tuple[bool, str]] = []
    for part in filter(None, map(str.strip, _MEMBER.findall(text))):
        tag = _TAG.fullmatch(part)
        if tag is None:
            raise ConfigError(
                f'{name}: {cut(part)} is no tag; write ETags that replies carried, or "*" alone'
            )
        found.append((tag[1] is not None, tag[2]))
    if not found:
        raise ConfigError(f'{name} is empty; write ETags that replies carried, or "*" alone')
    return Tags(False, tuple(found))


def read_expectation(request: web.BaseRequest) -> Expectation | None:
    """What If-Match and If-None-Match of a write expect of the key; None: nothing. Raises
    ConfigError."""
    match, none = read_tags(request, "If-Match"), read_tags(request, "If-None-Match")
    if match is not None and none is not None:
        raise ConfigError("a write takes If-Match or If-None-Match, not both")
    if none is not None:
        return (
            False if none.everything else Among(_versions("If-None-Match", none, weak=True), True)
        )
    if match is None:
        return None
    if match.everything:
        return True
    versions = _versions("If-Match", match, weak=False)
    return versions[0] if len(versions) == 1 else Among(versions)


def _versions(name: str, tags: Tags, *, weak: bool) -> tuple[Version, ...]:
    """The versions that tags name, in order, each once."""
    found: dict[Version, None] = {}
    for is_weak, text in tags.tags:
        try:
            version = parse_version(text)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None
        if weak or not is_weak:
            found[version] = None
    return tuple(sorted(found))


def is_own_name(host: str) -> bool:
    """Whether a host is this machine's under any circumstances: no name that others choose."""
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _host(authority: str, what: str) -> str:
    matched = _AUTHORITY.fullmatch(authority.strip())
    try:
        if matched is None:
            raise ValueError(f"{cut(authority)} is not HOST:PORT")
        if matched[2]:
            parse_whole(matched[2], 0, 65535)
    except ValueError as error:
        raise ConfigError(f"{what}: {error}") from None
    return matched[1].strip("[]").lower().removesuffix(".")
