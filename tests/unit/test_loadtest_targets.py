"""Commands as HTTP requests, and what answers mean."""

import json
from base64 import b64decode

import pytest

from bench.loadtest.targets import Epaxos, Etcd, Told, make_target
from epaxos.core.command import Operation, encode_cas
from epaxos.core.errors import ConfigError
from epaxos.workload import Command

GET = Command(Operation.GET, b"a/b", b"", 0)
PUT = Command(Operation.PUT, b"a/b", b"value", 0)
MODIFY = PUT._replace(modifies=True)


def meaning(target, request, status, body=b"", **headers):
    named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    return target.meaning(request, status, lambda name: named.get(name.lower()), body)


def test_a_put_is_one_string_of_octets():
    request = Epaxos("host:1").request(PUT)
    assert (request.operation, request.method) == ("PUT", "PUT")
    assert request.octets == (
        b"PUT /v1/kv/a%2Fb HTTP/1.1\r\nHost: host:1\r\nContent-Length: 5\r\n\r\nvalue"
    )


def test_the_second_half_of_a_read_modify_write_expects_what_was_read():
    target = Epaxos("h")
    answer = meaning(target, target.request(GET), 200, ETag='"0.A.7.0"')
    assert b'If-Match: "0.A.7.0"\r\n' in target.request(MODIFY, answer.found).octets
    missing = meaning(target, target.request(GET), 404)
    assert not missing.failure
    assert b"If-None-Match: *\r\n" in target.request(MODIFY, missing.found).octets
    assert target.request(MODIFY).octets == target.request(PUT).octets


@pytest.mark.parametrize(
    ("expect", "condition"),
    [
        (False, b"If-None-Match: *"),
        (True, b"If-Match: *"),
        ((0, 7, 0), b'If-Match: "0.A.7.0"'),
    ],
)
def test_conditions_are_headers(expect, condition):
    command = Command(Operation.CAS, b"k", encode_cas(expect, b"new"), 0)
    request = Epaxos("h").request(command)
    assert request.operation == "CAS"
    assert condition in request.octets
    removal = Command(Operation.CAS, b"k", encode_cas(expect, None), 0)
    assert Epaxos("h").request(removal).octets.startswith(b"DELETE /v1/kv/k ")


def test_values_cannot_be_compared_over_http():
    command = Command(Operation.CAS, b"k", encode_cas(b"old", b"new"), 0)
    for name in ("epaxos", "etcd"):
        with pytest.raises(ConfigError):
            make_target(name, "h").request(command)


def test_commit_and_execution_are_told_apart():
    target = Epaxos("h")
    request = target.request(PUT)
    timing = "commit;dur=70.123, exec;dur=75.500"
    found = meaning(target, request, 200, Server_Timing=timing, X_EPaxos_Path="slow")
    assert (found.failure, found.path, found.waited_us) == ("", "slow", 5377)
    assert meaning(target, request, 200).waited_us == -1


@pytest.mark.parametrize("wrong", ["1.2.3", ".", "", "9" * 400, "1e5", "-1"])
def test_a_time_that_is_none_is_no_time(wrong):
    target = Epaxos("h")
    for timing in (f"commit;dur={wrong}, exec;dur=75.5", f"commit;dur=70.1, exec;dur={wrong}"):
        found = meaning(target, target.request(PUT), 200, Server_Timing=timing)
        assert (found.failure, found.waited_us) == ("", -1)


def test_what_is_a_success():
    target = Epaxos("h")
    cas = target.request(Command(Operation.CAS, b"k", encode_cas(False, b"v"), 0))
    refused = meaning(target, cas, 412)
    assert (refused.failure, refused.operation) == ("", "CAS 412")
    assert meaning(target, target.request(PUT), 404).failure == "404"
    body = b'{"type":"x","title":"It may have happened","detail":"no quorum within 5 s"}'
    assert meaning(target, cas, 504, body).failure == "504 It may have happened"


def test_etcd_speaks_base64():
    target = Etcd("h")
    head, body = target.request(PUT).octets.split(b"\r\n\r\n")
    assert head.startswith(b"POST /v3/kv/put HTTP/1.1\r\n")
    document = json.loads(body)
    assert (b64decode(document["key"]), b64decode(document["value"])) == (b"a/b", b"value")
    request = target.request(GET)
    assert request.octets.startswith(b"POST /v3/kv/range ")
    assert meaning(target, request, 200, b'{"header":{}}').found == ""
    kvs = b'{"kvs":[{"create_revision":"3","mod_revision":"12","value":"eA=="}]}'
    found = meaning(target, request, 200, kvs).found
    assert found == "12"
    compare = json.loads(target.request(MODIFY, found).octets.split(b"\r\n\r\n")[1])["compare"]
    assert compare == [
        {"key": "YS9i", "target": "MOD", "result": "EQUAL", "modRevision": "12"},
    ]
    cas = target.request(MODIFY, "")
    assert b'"createRevision":"0"' in cas.octets
    assert meaning(target, cas, 200, b'{"succeeded": true}').operation == "CAS"
    assert meaning(target, cas, 200, b"{}").operation == "CAS 412"
    assert meaning(target, cas, 503).failure == "503"


def told(target, request, status, body=b"", **headers):
    named = {name.lower(): value for name, value in headers.items()}
    return target.told(request, status, lambda name: named.get(name.lower()), body)


def test_a_history_hears_what_was_found_written_or_met():
    target = Epaxos("h")
    get, put = target.request(GET), target.request(PUT)
    conditional = target.request(MODIFY, '"0.A.7.0"')
    assert told(target, get, 200, b"x", ETag='"0.A.7.0"') == Told(b"x", (0, 7, 0))
    assert told(target, get, 404) == Told(None)
    assert told(target, put, 200, ETag='"0.B.7.3"') == Told(True, (1, 7, 3))
    assert told(target, conditional, 412, ETag='"0.B.7.3"') == Told(False, (1, 7, 3))
    assert told(target, conditional, 412) == Told(False, None, met_nothing=True)
    delete = target.request(Command(Operation.DELETE, b"k", b"", 0))
    assert told(target, delete, 404) == Told(False)
    assert told(target, delete, 200).result is True


def test_a_history_hears_the_same_of_etcd():
    target = Etcd("h")
    get, put = target.request(GET), target.request(PUT)
    found = b'{"header":{"revision":"9"},"kvs":[{"key":"YQ==","mod_revision":"7","value":"eA=="}]}'
    assert told(target, get, 200, found) == Told(b"x", (0, 7, 0))
    assert told(target, get, 200, b'{"header":{"revision":"9"}}') == Told(None)
    assert told(target, put, 200, b'{"header":{"revision":"9"}}') == Told(True, (0, 9, 0))
    conditional = target.request(MODIFY, "7")
    done = b'{"header":{"revision":"9"},"succeeded":true}'
    assert told(target, conditional, 200, done) == Told(True, (0, 9, 0))
    assert told(target, conditional, 200, b'{"header":{"revision":"9"}}') == Told(False)
    delete = target.request(Command(Operation.DELETE, b"k", b"", 0))
    assert told(target, delete, 200, b'{"deleted":"1"}') == Told(True)
    assert told(target, delete, 200, b"{}") == Told(False)


@pytest.mark.parametrize(("status", "definite"), [(429, True), (503, True), (504, False)])
def test_which_refusals_say_that_nothing_happened(status, definite):
    assert Epaxos("h").is_definite(status) is definite
    assert not Etcd("h").is_definite(status)
