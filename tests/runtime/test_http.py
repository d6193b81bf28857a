"""HTTP: codes, headers, conditions, limits; what the client may conclude from each answer."""

import asyncio
import contextlib
import json
from urllib.parse import unquote_to_bytes

import pytest
from aiohttp import http_parser
from fakenode import ports

from epaxos.core.errors import ConfigError
from epaxos.runtime.webserver import WebServer

JSON = {"Content-Type": "application/json"}


async def raw(parts, data):
    """Send bytes, read until the end."""
    reader, writer = await asyncio.open_connection(*parts.http_address)
    writer.write(data)
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


async def check_problem(response, status, code):
    assert response.status == status
    assert response.content_type == "application/problem+json"
    document = json.loads(await response.read())
    assert document["type"] == f"urn:epaxos:problem:{code}"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document


async def test_put_get_delete():
    async with ports() as p:
        url = p.url + "/v1/kv/greeting"
        async with p.web.get(url) as r:
            await check_problem(r, 404, "no-such-key")
            assert r.headers["X-EPaxos-Instance"] == "A.1"
        async with p.web.put(url, data=b"hello") as r:
            assert r.status == 200
            assert await r.json() == {"version": "0.A.2.0", "instance": "A.2"}
            assert r.headers["ETag"] == '"0.A.2.0"'
            assert r.headers["X-EPaxos-Path"] == "fast"
            assert "commit;dur=" in r.headers["Server-Timing"]
            assert "exec;dur=" in r.headers["Server-Timing"]
        async with p.web.get(url) as r:
            assert (r.status, await r.read()) == (200, b"hello")
            assert r.headers["ETag"] == '"0.A.2.0"'
            assert r.content_type == "application/octet-stream"
        async with p.web.head(url) as r:
            assert (r.status, await r.read()) == (200, b"")
        async with p.web.get(url, headers={"If-None-Match": '"a,b", W/"c"'}) as r:
            assert r.status == 200
        async with p.web.get(url, headers={"If-None-Match": '"0.A.2.0"'}) as r:
            assert r.status == 304
        async with p.web.delete(url) as r:
            assert r.status == 200
        async with p.web.delete(url) as r:
            await check_problem(r, 404, "no-such-key")


@pytest.mark.parametrize(
    "key", ["a%2Fb", "a/b", "%00%ff", "..%2f..", "%E4%BD%A0", "a%20b", "x%3Fy"]
)
async def test_keys_are_bytes(key):
    async with ports() as p:
        request = f"PUT /v1/kv/{key} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
        answer = await raw(p, request.encode() + b"Connection: close\r\n\r\nv")
        assert answer.startswith(b"HTTP/1.1 200")
        assert p.node.requests[0].keys == [unquote_to_bytes(key)]


async def test_conditions():
    async with ports() as p:
        url = p.url + "/v1/kv/k"
        async with p.web.put(url, data=b"1", headers={"If-Match": "*"}) as r:
            document = await check_problem(r, 412, "condition-failed")
            assert "ETag" not in r.headers
            assert document["version"] is None
        async with p.web.put(url, data=b"1", headers={"If-None-Match": "*"}) as r:
            assert r.status == 200
            etag = r.headers["ETag"]
        async with p.web.put(url, data=b"2", headers={"If-None-Match": "*"}) as r:
            document = await check_problem(r, 412, "condition-failed")
            assert r.headers["ETag"] == etag
            assert f'"{document["version"]}"' == etag
        async with p.web.put(url, data=b"2", headers={"If-Match": etag}) as r:
            assert r.status == 200
            newer = r.headers["ETag"]
        for condition in (newer, "*", f"{etag}, {newer}"):
            async with p.web.get(url, headers={"If-Match": condition}) as r:
                assert (r.status, await r.read()) == (200, b"2")
        async with p.web.get(url, headers={"If-Match": etag}) as r:
            document = await check_problem(r, 412, "condition-failed")
            assert f'"{document["version"]}"' == newer == r.headers["ETag"]
        async with p.web.get(p.url + "/v1/kv/none", headers={"If-Match": "*"}) as r:
            document = await check_problem(r, 412, "condition-failed")
            assert document["version"] is None
        async with p.web.delete(url, headers={"If-Match": etag}) as r:
            await check_problem(r, 412, "condition-failed")
        async with p.web.delete(url, headers={"If-Match": newer}) as r:
            assert r.status == 200
            assert "ETag" not in r.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"If-Match": "0.A.1.0"},
        {"If-Match": '"nonsense"'},
        {"If-Match": '""'},
        {"If-Match": '"0.A.99999999999999999999999.0"'},
        {"If-Match": '"0.A.+1_0. 0"'},
        {"If-Match": '"0.A.07.0"'},
        {"If-Match": '*, "0.A.1.0"'},
        {"If-Match": ","},
        {"If-None-Match": "W/0.A.1.0"},
        {"If-Match": "*", "If-None-Match": "*"},
    ],
)
async def test_conditions_that_cannot_be_kept_are_refused(headers):
    async with ports() as p:
        async with p.web.put(p.url + "/v1/kv/k", data=b"1", headers=headers) as r:
            await check_problem(r, 400, "invalid")
        assert p.node.requests == []


async def test_conditions_of_writes_are_lists_of_versions():
    async with ports() as p:
        url = p.url + "/v1/kv/k"
        async with p.web.put(url, data=b"1", headers={"If-None-Match": '"0.A.9.0"'}) as r:
            assert r.status == 200
            etag = r.headers["ETag"]
        for condition in (f'"0.A.9.0", {etag}', f'W/"0.A.9.0", W/{etag}'):
            async with p.web.put(url, data=b"2", headers={"If-None-Match": condition}) as r:
                await check_problem(r, 412, "condition-failed")
        for condition in ('"0.A.8.0", "0.A.9.0"', f"W/{etag}"):  # W/ never matches a write
            async with p.web.put(url, data=b"2", headers={"If-Match": condition}) as r:
                await check_problem(r, 412, "condition-failed")
        lines = [("If-Match", '"0.A.9.0"'), ("If-Match", etag)]
        async with p.web.put(url, data=b"2", headers=lines) as r:
            assert r.status == 200
            newer = r.headers["ETag"]
        async with p.web.delete(url, headers={"If-None-Match": newer}) as r:
            await check_problem(r, 412, "condition-failed")
        async with p.web.delete(url, headers={"If-Match": f"{etag}, {newer}"}) as r:
            assert r.status == 200
        async with p.web.delete(url, headers={"If-None-Match": newer}) as r:
            await check_problem(r, 404, "no-such-key")


async def test_reads_compare_weakly_for_304_and_strongly_for_412():
    async with ports() as p:
        url = p.url + "/v1/kv/k"
        async with p.web.put(url, data=b"1") as r:
            etag = r.headers["ETag"]
        for condition in (f"W/{etag}", f'"x", W/{etag}', "*"):
            async with p.web.get(url, headers={"If-None-Match": condition}) as r:
                assert r.status == 304
        async with p.web.get(url, headers={"If-None-Match": 'W/"x"'}) as r:
            assert r.status == 200
        async with p.web.get(url, headers={"If-Match": f"W/{etag}"}) as r:
            await check_problem(r, 412, "condition-failed")


async def test_what_a_client_calls_its_request_is_text():
    async with ports() as p:
        head = b"PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        answer = await raw(p, head + b"X-Request-Id: a\xff\r\nContent-Length: 1\r\n\r\nv")
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"X-Request-Id" in answer
        assert p.node.requests == []


@pytest.mark.parametrize(
    "line", [b"GET /\xff HTTP/1.1", b"GET /v1/instances/\xff HTTP/1.1", b"GET /?\xff HTTP/1.1"]
)
async def test_what_is_not_utf8_is_escaped_in_problems(line):
    async with ports() as p:
        answer = await raw(p, line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert answer.split()[1] in (b"400", b"404")
        json.loads(answer.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize(
    "target",
    [
        "/v1/kv/k?consistency=stale",
        "/v1/kv/k?",
        "/livez?x",
        "/metrics?limit=1",
        "/v1/status?limit=1",
        "/v1/instances/A.1?x=",
        "/v1/graph?limit=1&limit=2",
        "/v1/graph?limit=",
        "/v1/graph?limit=+1",
        "/v1/graph?limit=%D9%A3",
        "/v1/graph?limit=1_0",
        "/v1/graph?limit=007",
        "/v1/graph?limit=" + "9" * 5000,
        "/v1/graph?limits=1",
        "/v1/explain?limit=0",
        "/v1/explain?limit=1&x=1",
        "/v1/explain/A.1?limit=1",
    ],
)
async def test_parameters_are_known_given_once_and_in_range(target):
    async with ports() as p:
        answer = await raw(
            p, f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        if target.endswith("k?"):
            assert answer.startswith(b"HTTP/1.1 404")
            return
        assert answer.startswith(b"HTTP/1.1 400")
        assert len(answer) < 1_000
        name = target.partition("?")[2].rpartition("&")[2].partition("=")[0]
        assert name.encode() in answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Host: LocalHost", 200),
        ("Host: localhost.", 200),
        ("Host: localhost.:80", 200),
        ("Host: [::1]:80", 200),
        ("Host: 127.0.0.1:", 200),
        ("Host: localhost:99999", 400),
        ("Host: localhost:8\u0663", 400),
        ("Host: u@localhost", 400),
        ("Host: localhost\r\nHost: localhost", 400),
        ("Host: localhost\r\nX-Request-Id: a\r\nX-Request-Id: b", 400),
        ("Host: localhost\r\nContent-Length: 0\r\nContent-Length: 0", 400),
        ("Host: localhost\r\nContent-Length: +0", 400),
        ("Host: localhost\r\nContent-Length: 0\r\nTransfer-Encoding: chunked", 400),
        ("Host: localhost\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 400),
        ("Host: localhost\r\nTransfer-Encoding: gzip, chunked", 400),
        ("X: no host", 400),
    ],
)
async def test_headers_that_say_where_and_how_long_are_strict(headers, status):
    head = f"GET /livez HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n"
    body = "0\r\n\r\n" if "chunked" in headers else ""
    async with ports() as p:
        answer = await raw(p, (head + body).encode())
        assert answer.split()[1] == b"%d" % status


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://127.0.0.1:8001/livez", 200),
        ("HTTP://LOCALHOST/v1/graph?limit=7", 200),
        ("http://localhost", 404),
        ("http://evil.example/livez", 403),
        ("http://u@localhost/livez", 400),
        ("https://localhost/livez", 400),
        ("livez", 400),
    ],
)
async def test_a_client_that_takes_us_for_a_proxy_is_served(target, status):
    async with ports() as p:
        answer = await raw(
            p, f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        assert answer.split()[1] == b"%d" % status


@pytest.mark.parametrize(
    ("code", "status", "retry"),
    [
        ("invalid", 400, None),
        ("overloaded", 429, "1"),
        ("not-proposed", 503, "1"),
        ("outcome-unknown", 504, None),
        ("something-new", 503, "1"),
    ],
)
async def test_refusal_codes_map_to_http(code, status, retry):
    async with ports() as p:
        p.node.react = code
        async with p.web.put(p.url + "/v1/kv/k", data=b"1") as r:
            document = await check_problem(r, status, code)
            assert document["detail"] == f"because of {code}"
            assert r.headers.get("Retry-After") == retry


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/kv", 404),
        ("GET", "/v1/kv/", 400),
        ("GET", "/v1/kv/" + "k" * 1025, 400),
        ("POST", "/v1/kv/k", 405),
        ("DELETE", "/v1/status", 405),
        ("GET", "/v1/leader", 405),
        ("GET", "/v1/instances/nonsense", 400),
        ("GET", "/v1/instances/A.10", 404),
        ("GET", "/v1/graph?limit=0", 400),
        ("GET", "/v1/graph?limit=1001", 400),
        ("GET", "/v1/graph?limit=x", 400),
    ],
)
async def test_what_is_not_there_is_a_problem_document(method, path, status):
    async with ports() as p, p.web.request(method, p.url + path) as r:
        assert r.status == status
        assert r.content_type == "application/problem+json"
        assert json.loads(await r.read())["status"] == status
        assert ("Allow" in r.headers) == (status == 405)


async def test_questions():
    async with ports() as p:
        async with p.web.get(p.url + "/v1/instances/B.7") as r:
            assert await r.json() == {"instance": "B.7"}
        async with p.web.get(p.url + "/v1/graph?limit=5") as r:
            assert await r.json() == {"limit": 5}
        async with p.web.get(p.url + "/v1/status") as r:
            assert await r.json() == {
                "replica": "A",
                "node": {"asked": "AskStatus"},
                "clients": {"http": 1, "http_in_flight": 1},
            }
        async with p.web.get(p.url + "/v1/histograms") as r:
            assert (await r.json())["loop_lag"] == "HISTF"
        async with p.web.get(p.url + "/metrics") as r:
            assert r.status == 200
        async with p.web.get(p.url + "/livez") as r:
            assert r.status == 200


async def test_readiness_says_why():
    async with ports() as p:
        async with p.web.get(p.url + "/readyz") as r:
            assert r.status == 200
        p.status.why = "linked to 0 of 2 peers"
        async with p.web.get(p.url + "/readyz") as r:
            assert (await check_problem(r, 503, "not-ready"))["detail"] == p.status.why
        p.status.draining = True
        async with p.web.put(p.url + "/v1/kv/k", data=b"") as r:
            await check_problem(r, 503, "not-proposed")


async def test_leader_and_links():
    async with ports() as p:
        leader, links = p.url + "/v1/leader", p.url + "/v1/links"
        async with p.web.post(leader, data=b'{"to": "B"}', headers=JSON) as r:
            assert (r.status, await r.json()) == (202, {"asked": "AskTransfer"})
        async with p.web.post(leader, data=b'{"to": "A"}', headers=JSON) as r:
            await check_problem(r, 409, "not-possible")
        async with p.web.post(leader, data=b'{"to": "Z"}', headers=JSON) as r:
            await check_problem(r, 400, "invalid")
        async with p.web.post(leader, data=b'{"to": "B"}') as r:
            await check_problem(r, 415, "invalid")
        async with p.web.get(links) as r:
            assert await r.json() == {"links": [{"from": "B"}]}
        async with p.web.put(links, data=b'{"from": "B", "cut": true}', headers=JSON) as r:
            assert r.status == 200
        async with p.web.put(links, data=b'[{"loss": 0.5}, {"delay_ms": 3}]', headers=JSON) as r:
            assert r.status == 200
        assert [(c.source, c.cut, c.loss, c.delay_ms) for c in p.links.changes] == [
            ("B", True, None, None),
            ("*", None, 0.5, None),
            ("*", None, None, 3),
        ]
        for body in (b"{", b'{"lost": 1}', b'{"cut": "yes"}', b"7"):
            async with p.web.put(links, data=body, headers=JSON) as r:
                await check_problem(r, 400, "invalid")
        p.links.enabled = False
        async with p.web.put(links, data=b"{}", headers=JSON) as r:
            await check_problem(r, 404, "no-such-route")


async def test_bodies_have_a_limit():
    async with ports() as p:
        url = p.url + "/v1/kv/k"
        async with p.web.put(url, data=b"x" * 100_000) as r:
            assert r.status == 200

        async def chunks():
            for _ in range(20):
                yield b"y" * 10_000

        for data in (b"x" * 100_001, chunks()):
            with contextlib.suppress(ConnectionError):
                async with p.web.put(url, data=data) as r:
                    await check_problem(r, 413, "invalid")
        async with p.web.put(url, data=b"x", headers={"Content-Encoding": "gzip"}) as r:
            await check_problem(r, 415, "invalid")
        async with p.web.put(url, data=b"x", headers={"Content-Range": "bytes 0-0/9"}) as r:
            await check_problem(r, 400, "invalid")
        assert len(p.node.requests) == 1


async def test_a_client_may_ask_before_it_sends_a_body():
    async with ports() as p:
        reader, writer = await asyncio.open_connection(*p.http_address)
        writer.write(
            b"PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
            b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        async with asyncio.timeout(5):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"abc")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        assert p.node.data[b"k"][0] == b"abc"


async def test_a_browser_page_under_another_name_is_refused():
    async with ports() as p:
        for host, status in (("evil.example", 403), ("localhost:80", 200), ("[::1]:80", 200)):
            async with p.web.get(p.url + "/livez", headers={"Host": host}) as r:
                assert r.status == status


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_malformed_requests_are_answered_and_closed(data):
    async with ports() as p:
        answer = await raw(p, data)
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
        assert b"application/problem+json" in answer
        async with p.web.get(p.url + "/livez") as r:
            assert r.status == 200


@pytest.mark.parametrize("data", [b"", b"GET /livez HTTP/1.1\r\nHost: local"])
async def test_silent_and_half_headers_are_closed(monkeypatch, data):
    monkeypatch.setattr("epaxos.runtime.webserver.HEADER_DEADLINE_S", 0.1)
    async with ports() as p:
        assert await raw(p, data) == b""


async def test_half_headers_after_a_request_are_closed_too(monkeypatch):
    monkeypatch.setattr("epaxos.runtime.webserver.HEADER_DEADLINE_S", 0.1)
    async with ports() as p:
        whole = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
        reader, writer = await asyncio.open_connection(*p.http_address)
        writer.write(whole)
        async with asyncio.timeout(5):
            await reader.readuntil(b"ok\n")
            await asyncio.sleep(0.3)
            writer.write(whole)
            await reader.readuntil(b"ok\n")
            writer.write(whole[:10])
            assert await reader.read() == b""
        writer.close()


async def test_a_half_body_is_answered_and_closed(monkeypatch):
    monkeypatch.setattr("epaxos.runtime.http.BODY_DEADLINE_S", 0.1)
    async with ports() as p:
        reader, writer = await asyncio.open_connection(*p.http_address)
        writer.write(b"PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        writer.close()
        assert p.node.requests == []


async def test_half_bodies_of_all_connections_are_bounded_together(monkeypatch):
    monkeypatch.setattr("epaxos.runtime.http.ARRIVING_BYTES_MAX", 300)
    head = b"PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200\r\n\r\n"
    async with ports() as p:
        ends = [await asyncio.open_connection(*p.http_address) for _ in range(2)]
        for _, writer in ends:
            writer.write(head + b"a" * 199)
        lines = [asyncio.ensure_future(reader.readline()) for reader, _ in ends]
        done, left = await asyncio.wait(lines, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        assert [each.result()[:12] for each in done] == [b"HTTP/1.1 429"]
        ends[lines.index(*left)][1].write(b"a")
        assert (await asyncio.wait_for(*left, 5))[:12] == b"HTTP/1.1 200"
        for _, writer in ends:
            writer.close()
        async with p.web.put(p.url + "/v1/kv/k", data=b"a" * 290) as r:
            assert r.status == 200


async def test_connections_beyond_the_cap_get_a_503():
    async with ports(connections=2) as p:
        held = [await asyncio.open_connection(*p.http_address) for _ in range(2)]
        await asyncio.sleep(0.05)
        answer = await raw(p, b"")
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"Retry-After" in answer
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.05)
        async with p.web.get(p.url + "/livez") as r:
            assert r.status == 200


MIB = 1 << 20


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 # what is awaited has no event
            await asyncio.sleep(0.002)


async def test_many_reads_of_a_large_value_are_all_answered_and_held_once():
    async with ports(connections=100) as p:
        value = bytes(range(256)) * (4 * MIB // 256)
        p.node.data[b"big"] = (value, (0, 1, 0))
        async with p.web.head(p.url + "/v1/kv/big") as r:
            assert (r.status, r.headers["Content-Length"]) == (200, str(4 * MIB))
        request = b"GET /v1/kv/big HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        streams = [await asyncio.open_connection(*p.http_address) for _ in range(20)]
        for _, writer in streams:
            writer.transport.pause_reading()
            writer.write(request)
        await until(lambda: sum(c.writing_paused for c in p.http.web.connections) == 20)
        for connection in p.http.web.connections:
            assert connection.transport.get_write_buffer_size() < MIB
        for reader, writer in streams:
            writer.transport.resume_reading()
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert body == value
            writer.close()
        assert p.failures == []


async def test_a_client_that_does_not_read_its_answer_loses_its_connection(monkeypatch):
    monkeypatch.setattr("epaxos.runtime.unread.UNREAD_DEADLINE_S", 0.2)
    async with ports() as p:
        p.node.data[b"big"] = (bytes(20 * MIB), (0, 1, 0))
        _, writer = await asyncio.open_connection(*p.http_address)
        writer.transport.pause_reading()
        writer.write(b"GET /v1/kv/big HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: p.http.web.connections)
        await until(lambda: not p.http.web.connections and not p.http.in_flight)
        writer.close()
        async with p.web.get(p.url + "/livez") as r:
            assert r.status == 200


async def test_an_answer_that_cannot_be_given_costs_one_request(monkeypatch):
    async with ports() as p:
        url = p.url + "/v1/kv/k"
        with monkeypatch.context() as patch:
            patch.setattr("epaxos.runtime.http._Waiting.reply", lambda *args: 1 / 0)
            async with p.web.put(url, data=b"v") as r:
                await check_problem(r, 500, "internal")
        async with p.web.get(url) as r:
            assert (r.status, await r.read()) == (200, b"v")
        assert p.failures == []
        assert p.driver.faults == 1


async def test_a_client_that_goes_away_does_not_stop_its_command():
    async with ports() as p:
        p.node.react = "silent"
        _, writer = await asyncio.open_connection(*p.http_address)
        writer.write(b"PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv")
        async with asyncio.timeout(5):
            while not p.node.held:  # noqa: ASYNC110 # the fake has no event
                await asyncio.sleep(0.005)
            writer.close()
            await asyncio.sleep(0.05)
            p.node.answer(p.node.held.pop(), 1)
            p.driver.schedule()
            while p.http.in_flight:  # noqa: ASYNC110 # the port has no event
                await asyncio.sleep(0.005)
        assert p.node.data[b"k"][0] == b"v"
        assert p.failures == []


async def test_without_the_compiled_parser_nothing_is_served(monkeypatch):
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    with pytest.raises(ConfigError, match="from a wheel"):
        WebServer(None, 1)
