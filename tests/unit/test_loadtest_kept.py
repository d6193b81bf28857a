"""What a Locust process keeps for a history."""

import pytest

from bench.history.calls import ABSENT
from bench.history.reading import read_lines
from bench.loadtest.http import HttpAnswer
from bench.loadtest.kept import KeptCalls
from bench.loadtest.targets import Epaxos, Meaning
from epaxos.core.command import Operation
from epaxos.workload import Command

PUT = Command(Operation.PUT, b"k", b"v" * 20, 0)
GET = Command(Operation.GET, b"k", b"", 0)
TARGET = Epaxos("h")


def answer(status, body=b"", headers=""):
    found = HttpAnswer()
    found.arrived = 9
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    found.feed(head.encode() + body)
    return found


@pytest.fixture
def kept(tmp_path):
    calls = KeptCalls(str(tmp_path), "0", ABSENT)
    yield calls
    calls.close()


def ask(kept, user, command, outcome, found=None):
    command = kept.made_unlike(user, "CA", command)
    call = kept.begin(user, command, TARGET, found, 1)
    if outcome is not None:
        failure = "" if isinstance(outcome, HttpAnswer) and outcome.get_code() < 500 else "failed"
        request = TARGET.request(command, found)
        kept.end(call, TARGET, request, outcome, Meaning(request.operation, failure))
    return command.argument.decode()


def calls_in(tmp_path):
    found = read_lines([tmp_path / "load-0.jsonl"])
    assert not found.unfinished
    return found.keys.get(b"k", [])


def test_answers_refusals_and_silence(kept, tmp_path):
    user = object()
    ask(kept, user, PUT, answer(200, headers='ETag: "0.A.7.0"\r\n'))
    ask(kept, user, PUT, answer(503))
    ask(kept, user, PUT, answer(504))
    ask(kept, user, PUT, TimeoutError())
    ask(kept, user, PUT, ConnectionResetError())
    ask(kept, user, PUT, ConnectionRefusedError())
    ask(kept, user, PUT, None)
    ask(kept, user, GET, TimeoutError())
    kept.close()
    calls = calls_in(tmp_path)
    assert [call.returned for call in calls] == [9, *[None] * 6]
    assert [call.refused for call in calls] == [False, True, False, False, False, True, False]
    assert calls[0].version == "0.A.7.0"
    assert len({call.value for call in calls}) == 7
    assert {call.client for call in calls} == {"CA.0.0"}


def test_the_same_question_twice_at_one_moment_is_two_calls(kept, tmp_path):
    user = object()
    first = kept.begin(user, kept.made_unlike(user, "CA", GET), TARGET, None, 1)
    second = kept.begin(user, GET, TARGET, None, 1)
    for call in (first, second):
        kept.end(call, TARGET, TARGET.request(GET), answer(404), Meaning("GET"))
    kept.close()
    assert len(calls_in(tmp_path)) == 2


def test_the_second_half_of_a_read_modify_write_is_a_cas_of_that_version(kept, tmp_path):
    modify = PUT._replace(modifies=True)
    ask(kept, object(), modify, answer(412, headers='ETag: "0.B.2.0"\r\n'), '"0.A.7.0"')
    ask(kept, object(), modify, answer(412), '"0.A.7.0"')
    ask(kept, object(), modify, answer(200), "")
    kept.close()
    failed, met_nothing, created = calls_in(tmp_path)
    assert (failed.kind, failed.expect, failed.result) == ("cas", "0.A.7.0", False)
    assert failed.version == "0.B.2.0"
    assert met_nothing.result == (False, None)
    assert (created.expect, created.result) == (False, True)


def test_what_ends_after_the_history_is_left_out(kept, tmp_path):
    user = object()
    call = kept.begin(user, kept.made_unlike(user, "CA", PUT), TARGET, None, 1)
    kept.close()
    kept.end(call, TARGET, TARGET.request(PUT), answer(200), Meaning("PUT"))
    (kept_one,) = calls_in(tmp_path)
    assert kept_one.returned is None
