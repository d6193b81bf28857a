"""HTTP: for people, curl and Locust.

    PUT GET HEAD DELETE /v1/kv/{key}   raw bodies; If-Match, If-None-Match
    GET /livez /readyz /metrics /v1/status /v1/histograms /v1/instances/{id} /v1/graph?limit=
    GET /v1/explain/{id} /v1/explain?limit=   how sampled batches went, stage by stage
    POST /v1/leader   GET PUT /v1/links (only with admin = true)

Rules of this file: the store is never touched; what depends on the node's state is asked of the
node and leaves like any reply (R10). Errors are problem documents (RFC 9457); a fate that is not
known is a 504, never anything definite. A client that goes away does not stop its command.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import aiohttp
import msgspec
import orjson
import structlog
from aiohttp import web

from epaxos.core.command import (
    NO_VERSION,
    UNDECODABLE,
    Expectation,
    Operation,
    Status,
    Version,
    encode_cas,
    format_version,
)
from epaxos.core.errors import ConfigError, Definite
from epaxos.core.replica import Path
from epaxos.core.types import InstanceId, Micros, parse_instance
from epaxos.node.requests import (
    AskGraph,
    AskInstance,
    AskStatus,
    AskTransfer,
    Question,
    Refusal,
    Reply,
    Request,
)
from epaxos.node.sampling import SAMPLES_KEPT, document, instance_of
from epaxos.runtime.alarm import clock
from epaxos.runtime.binary import ARRIVING_BYTES_MAX, KEY_BYTES_MAX
from epaxos.runtime.driver import Driver
from epaxos.runtime.framing import Arriving
from epaxos.runtime.http_request import (
    RequestTarget,
    is_own_name,
    read_expectation,
    read_limit,
    read_parameters,
    read_request_name,
    read_tags,
    read_target,
)
from epaxos.runtime.links import LinkChange, LinkSettings
from epaxos.runtime.status import StatusView
from epaxos.runtime.unread import CHUNK_BYTES
from epaxos.runtime.webserver import Value, WebServer, problem

BODY_DEADLINE_S: Final = 30.0
GRAPH_MAX: Final = 1_000
"""Instances of one answer. On a contended key their edges grow with the square, and the replica
does nothing else while it lists them."""
_KV: Final = "/v1/kv/"
_INSTANCES: Final = "/v1/instances/"
_EXPLAIN: Final = "/v1/explain/"
_REQUEST_NAME_MAX: Final = 128
"""So much of an X-Request-Id is kept with a sample."""
_PATHS: Final = {
    Path.FAST: "fast",
    Path.SLOW: "slow",
    Path.RECOVERED: "recovered",
    Path.LEARNED: "recovered",
    Path.LEADER: "leader",
}
_REFUSALS: Final = {
    "invalid": (400, "Not a valid request"),
    "overloaded": (429, "Too busy; it did not happen"),
    "not-proposed": (503, "It did not happen"),
    "outcome-unknown": (504, "It may have happened"),
}

log = structlog.get_logger()


class LeaderChange(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/leader."""

    to: str
    """Region or letter."""


class _Waiting:
    """Waits for the one command of a request."""

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[Reply, Micros] | Refusal] = (
            asyncio.get_running_loop().create_future()
        )

    def reply(self, reply: Reply, now: Micros) -> None:
        if not self.answer.done():
            self.answer.set_result((reply, now))

    def refuse(self, refusal: Refusal) -> None:
        if not self.answer.done():
            self.answer.set_result(refusal)

    def give_up(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class _Call(NamedTuple):
    """A request to a route."""

    request: web.BaseRequest
    rest: bytes
    """What stands behind the route in the path, decoded: a key, an instance."""
    parameters: dict[str, str]
    """Of the query; only those that the route knows."""
    name: str | None
    """What its client calls it."""


_Handler = Callable[[_Call], Awaitable[web.Response]]


class _Route(NamedTuple):
    """What answers under a path."""

    methods: dict[str, _Handler]
    """Whoever takes GET takes HEAD too."""
    parameters: tuple[str, ...] = ()
    """The names that its query may have."""


class HttpPort:
    """The handler of all routes."""

    def __init__(
        self,
        driver: Driver,
        status: StatusView,
        links: LinkSettings,
        *,
        body_bytes: int,
        patience_us: Micros,
        connections: int,
        loopback: bool,
    ) -> None:
        self._driver = driver
        self._status = status
        self._links = links
        self._body_bytes = body_bytes
        self._patience_us = patience_us
        self._loopback = loopback
        self._arriving = Arriving(ARRIVING_BYTES_MAX)
        self.in_flight = 0
        """Requests under way."""
        self.web = WebServer(self.handle, connections)
        self._below = {
            _KV: _Route(
                {"GET": self._get, "HEAD": self._get, "PUT": self._put, "DELETE": self._delete}
            ),
            _INSTANCES: _Route({"GET": self._instance}),
            _EXPLAIN: _Route({"GET": self._explain}),
        }
        """By the path that something stands behind."""
        self._routes = {
            "/livez": _Route({"GET": self._livez}),
            "/readyz": _Route({"GET": self._readyz}),
            "/healthz": _Route({"GET": self._livez}),
            "/metrics": _Route({"GET": self._metrics}),
            "/v1/status": _Route({"GET": self._get_status}),
            "/v1/histograms": _Route({"GET": self._histograms}),
            "/v1/graph": _Route({"GET": self._graph}, ("limit",)),
            "/v1/explain": _Route({"GET": self._samples}, ("limit",)),
            "/v1/leader": _Route({"POST": self._leader}),
            "/v1/links": _Route({"GET": self._get_links, "PUT": self._change_links}),
        }

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Any request."""
        self.in_flight += 1
        try:
            return await self._route(request)
        except _Problem as error:
            return error.response
        except ConfigError as error:
            return problem(400, "invalid", "Not a valid request", str(error))
        finally:
            self.in_flight -= 1

    async def _route(self, request: web.BaseRequest) -> web.Response:
        target, method = read_target(request), request.method
        self._check_host(target)
        path = target.path
        base = next((base for base in self._below if path.startswith(base)), "")
        route = self._below[base] if base else self._routes.get(path)
        if route is None:
            raise _Problem(404, "no-such-route", "No such route", f"{path} is not a route")
        handler = route.methods.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise _method_not_allowed(method, base or path, route.methods)
        rest = unquote_to_bytes(path[len(base) :].encode("utf-8", "surrogateescape"))
        parameters = read_parameters(target.query, route.parameters)
        name = read_request_name(request, _REQUEST_NAME_MAX)
        return await handler(_Call(request, rest, parameters, name))

    def _check_host(self, target: RequestTarget) -> None:
        """A page in a browser must not reach a store on the same machine under a name of its
        own (DNS rebinding)."""
        if self._loopback and target.host is not None and not is_own_name(target.host):
            raise _Problem(
                403,
                "wrong-host",
                "Wrong host",
                f"this replica does not answer to the name {target.host!r}",
            )

    # Keys

    async def _get(self, call: _Call) -> web.Response:
        _check_key(call.rest)
        match, known = read_tags(call.request, "If-Match"), read_tags(call.request, "If-None-Match")
        reply, now = await self._run(call, Operation.GET, b"")
        headers = _headers(reply, now)
        results = reply.results
        exists = results.statuses[0] == Status.OK
        version = results.versions[0] if exists else NO_VERSION
        if match is not None and not (exists and match.has(format_version(version), weak=False)):
            raise _conflict(version, headers)
        if not exists:
            raise _Problem(
                404, "no-such-key", "No such key", "the key has no value", headers=headers
            )
        headers["ETag"] = _etag(version)
        if known is not None and known.has(format_version(version), weak=True):
            return web.Response(status=304, headers=headers)
        value = results.values[0]
        return web.Response(
            body=value if len(value) <= CHUNK_BYTES else Value(value),
            headers=headers,
            content_type="application/octet-stream",
        )

    async def _put(self, call: _Call) -> web.Response:
        expect = _expectation(call)
        return await self._write(call, expect, await self._body(call.request))

    async def _delete(self, call: _Call) -> web.Response:
        expect = _expectation(call)
        await self._body(call.request)
        return await self._write(call, expect, None)

    async def _write(
        self, call: _Call, expect: Expectation | None, value: bytes | None
    ) -> web.Response:
        if expect is not None:
            operation, argument = Operation.CAS, encode_cas(expect, value)
        elif value is not None:
            operation, argument = Operation.PUT, value
        else:
            operation, argument = Operation.DELETE, b""
        reply, now = await self._run(call, operation, argument)
        results = reply.results
        headers = _headers(reply, now)
        if not results.statuses:
            status, version = Status.OK, (results.replica, results.slot, results.index)
        else:
            status, version = Status(results.statuses[0]), results.versions[0]
        if status is Status.CONFLICT:
            raise _conflict(version, headers)
        if status is Status.MISSING or version == NO_VERSION:
            raise _Problem(
                404, "no-such-key", "No such key", "the key had no value", headers=headers
            )
        if value is not None:
            headers["ETag"] = _etag(version)
        document = {
            "version": format_version(version),
            "instance": headers["X-EPaxos-Instance"],
        }
        return _json(document, headers=headers)

    async def _run(
        self, call: _Call, operation: Operation, argument: bytes
    ) -> tuple[Reply, Micros]:
        if self._status.draining:
            raise _Problem(
                503,
                "not-proposed",
                "It did not happen",
                "this replica is stopping; ask another",
                headers={"Retry-After": "1"},
            )
        waiting = _Waiting()
        self._driver.submit(
            Request(
                waiting, bytes((operation,)), [call.rest], [argument], clock() + self._patience_us
            )
        )
        answer = await waiting.answer
        if isinstance(answer, Refusal):
            raise _refused(answer)
        if call.name is not None:
            answer[0].flight.name_request(call.name)
        return answer

    async def _body(self, request: web.BaseRequest) -> bytes:
        limit = self._body_bytes
        if "Content-Encoding" in request.headers:
            raise _Problem(
                415, "invalid", "Encoded body", "a value is stored as it comes; send it unencoded"
            )
        if "Content-Range" in request.headers:  # RFC 9110, 14.5
            raise _Problem(
                400, "invalid", "Partial body", "a value is written whole; leave Content-Range out"
            )
        length = request.content_length
        if length is not None and length > limit:
            raise _too_large(limit)
        content = request.content
        if not request.body_exists:
            return b""
        if content.is_eof():
            body = content.read_nowait()
        else:
            if request.headers.get("Expect", "").lower() == "100-continue":
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = b""
            try:
                async with asyncio.timeout(BODY_DEADLINE_S):
                    body = await self._arrive(content, limit)
            except TimeoutError:
                raise _Problem(
                    408, "invalid", "Too slow", f"the body took more than {BODY_DEADLINE_S:.0f} s"
                ) from None
        if len(body) > limit:
            raise _too_large(limit)
        return body

    async def _arrive(self, content: aiohttp.StreamReader, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            while part := await content.readany():
                fault = self._arriving.grow(len(part))
                if fault is not None:
                    raise _refused(Refusal(None, 0, 1, Definite(fault), "overloaded"))
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
            return b"".join(parts)
        finally:
            self._arriving.shrink(size)

    # Questions

    async def _ask(self, question: Question) -> dict[str, Any] | None:
        told = await self._driver.ask(question)
        if told.error is not None:
            definite = isinstance(told.error, Definite)
            code = "not-possible" if definite else "outcome-unknown"
            raise _Problem(409 if definite else 504, code, "Refused", str(told.error))
        return told.document

    async def _get_status(self, call: _Call) -> web.Response:
        node = await self._ask(AskStatus())
        http = {"http": len(self.web.connections), "http_in_flight": self.in_flight}
        return _json(self._status.document(node, http))

    async def _histograms(self, call: _Call) -> web.Response:
        return _json(self._status.histograms())

    async def _instance(self, call: _Call) -> web.Response:
        try:
            instance: InstanceId = parse_instance(call.rest.decode("utf-8", "backslashreplace"))
        except ValueError as error:
            raise _invalid(str(error)) from None
        document = await self._ask(AskInstance(instance))
        if document is None:
            raise _Problem(
                404,
                "no-such-instance",
                "No such instance",
                f"{instance} is not known here, or was executed everywhere and forgotten",
            )
        return _json(document)

    async def _graph(self, call: _Call) -> web.Response:
        return _json(await self._ask(AskGraph(read_limit(call.parameters, 1000, GRAPH_MAX))) or {})

    # Samples are stamped behind the sync of the step that they tell of, and are handed out between
    # steps: what they say is durable, so they need not be asked of the node (R10).

    async def _samples(self, call: _Call) -> web.Response:
        now = clock()
        latest = self._driver.samples.latest(read_limit(call.parameters, 20, SAMPLES_KEPT))
        samples = [document(stamps, now) for stamps in latest]
        return _json({**self._status.identity(), "samples": samples})

    async def _explain(self, call: _Call) -> web.Response:
        text = call.rest.decode("utf-8", "backslashreplace")
        samples, here = self._driver.samples, self._status.identity()
        instance = instance_of(text)
        stamps = samples.named(text) if instance is None else samples.find(instance)
        if stamps is None:
            raise _Problem(404, "not-sampled", "Not sampled", _why_not(text, len(samples), here))
        return _json({**here, **document(stamps, clock())})

    async def _leader(self, call: _Call) -> web.Response:
        change = _decode(await self._json_body(call.request), LeaderChange)
        target = self._status.find(change.to)
        return _json(await self._ask(AskTransfer(target)) or {}, status=202)

    # Operation

    async def _livez(self, call: _Call) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, call: _Call) -> web.Response:
        why = self._status.unready()
        if why is None:
            return web.Response(text="ok\n")
        raise _Problem(503, "not-ready", "Not ready", why, headers={"Retry-After": "1"})

    async def _metrics(self, call: _Call) -> web.Response:
        return web.Response(
            body=self._status.metrics(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def _get_links(self, call: _Call) -> web.Response:
        return _json({"links": self._changeable_links()})

    async def _change_links(self, call: _Call) -> web.Response:
        self._changeable_links()
        body = await self._json_body(call.request)
        changes = _decode(body, list[LinkChange] if body.lstrip()[:1] == b"[" else LinkChange)
        for change in changes if isinstance(changes, list) else [changes]:
            self._links.change(change)
        return _json({"links": self._changeable_links()})

    def _changeable_links(self) -> list[dict[str, Any]]:
        links = self._links.documents()
        if links is None:
            raise _Problem(
                404,
                "no-such-route",
                "Not enabled",
                "links can be changed only with admin = true and emulate = true, on this machine",
            )
        return links

    async def _json_body(self, request: web.BaseRequest) -> bytes:
        # Asking for this type makes a browser ask first, so that no page of another site can
        # send it unnoticed.
        if request.content_type != "application/json":
            raise _Problem(415, "invalid", "Wrong type", "send Content-Type: application/json")
        return await self._body(request)


class _Problem(Exception):
    """Ends a request with a problem document."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.response = problem(status, code, title, detail, headers, **more)


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS) + b"\n",
        headers=headers,
        content_type="application/json",
    )


def _decode(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNDECODABLE as error:
        raise _invalid(f"the body does not fit: {error}".replace("`", "")) from None


def _too_large(limit: int) -> _Problem:
    return _Problem(413, "invalid", "Too large", f"a value may have {limit} bytes at most")


def _invalid(detail: str) -> _Problem:
    return _Problem(400, "invalid", "Not a valid request", detail)


def _check_key(key: bytes) -> None:
    if not 0 < len(key) <= KEY_BYTES_MAX:
        raise _invalid(f"a key must have 1 to {KEY_BYTES_MAX} bytes, not {len(key)}")


def _expectation(call: _Call) -> Expectation | None:
    """What a write expects of its key, read before its body is."""
    _check_key(call.rest)
    return read_expectation(call.request)


def _why_not(text: str, kept: int, here: dict[str, Any]) -> str:
    """Why a replica cannot explain what `text` names."""
    if not here["per_second"]:
        return "nothing is sampled here; set explain_per_s in the cluster file"
    return (
        f"{text} is not among the {kept} samples that {here['region']} keeps: it was made by "
        f"another replica, or not sampled (at most {here['per_second']} batches per second are), "
        f"or is older than the latest {SAMPLES_KEPT}"
    )


def _conflict(version: Version, headers: dict[str, str]) -> _Problem:
    """A condition does not hold: the key has this version."""
    found = None if version == NO_VERSION else format_version(version)
    if found is not None:
        headers["ETag"] = _etag(version)
    return _Problem(
        412,
        "condition-failed",
        "The key is not as expected",
        "the key has no value" if found is None else "the key has another version",
        headers=headers,
        version=found,
    )


def _method_not_allowed(method: str, path: str, methods: dict[str, Any]) -> _Problem:
    allowed = ", ".join(methods)
    return _Problem(
        405,
        "method-not-allowed",
        "Method not allowed",
        f"{path} takes {allowed}, not {method}",
        headers={"Allow": allowed},
    )


def _refused(refusal: Refusal) -> _Problem:
    definite = isinstance(refusal.error, Definite)
    status, title = _REFUSALS.get(
        refusal.code,
        (503, "It did not happen") if definite else (504, "It may have happened"),
    )
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return _Problem(status, refusal.code, title, str(refusal.error), headers=headers)


def _headers(reply: Reply, now: Micros) -> dict[str, str]:
    """How the answer came about."""
    results, flight = reply.results, reply.flight
    committed = (flight.committed_at or now) - reply.arrived
    path = flight.path
    return {
        "Server-Timing": (
            f"commit;dur={committed / 1000:.3f}, exec;dur={(now - reply.arrived) / 1000:.3f}"
        ),
        "X-EPaxos-Instance": str(InstanceId(results.replica, results.slot)),
        "X-EPaxos-Path": _PATHS[path],
    }


def _etag(version: Version) -> str:
    return f'"{format_version(version)}"'
