"""Histories from files: ours, jepsen's, porcupine's; recognised, read, and judged as their authors
do. All were written for these tests."""

import json

import pytest

from bench.history.calls import (
    ANYTHING,
    OTHER,
    WHOLE_MAX,
    HistoryWriter,
    UnlikeValues,
    as_text,
    short,
)
from bench.history.judge import judge
from bench.history.reading import read_history, read_lines
from epaxos.core.command import Operation, Results, Status, encode_cas
from epaxos.core.errors import ConfigError


def verdict_of(text, tmp_path, name="history"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    found = read_history(path)
    return judge(found.keys, found.initial)


def jepsen(*events):
    return "\n".join(
        f"{{:type :{kind}, :f :{f}, :value {value}, :process {process}, :time {at}}}"
        for at, (process, kind, f, value) in enumerate(events)
    )


GOOD = [
    (0, "invoke", "write", 1),
    (1, "invoke", "read", "nil"),
    (1, "ok", "read", "nil"),
    (0, "ok", "write", 1),
    (1, "invoke", "cas", "[1 2]"),
    (1, "ok", "cas", "[1 2]"),
    (0, "invoke", "write", 3),
    (0, "info", "write", ":timed-out"),
    (1, "invoke", "read", "nil"),
    (1, "ok", "read", 2),
    (1, "invoke", "read", "nil"),
    (1, "ok", "read", 3),
    (2, "invoke", "write", 9),
    (2, "fail", "write", 9),
]
STALE = [*GOOD, (1, "invoke", "read", "nil"), (1, "ok", "read", 2)]
REFUSED = [*GOOD, (1, "invoke", "read", "nil"), (1, "ok", "read", 9)]
LOG = "".join(f"INFO  jepsen.util - {p}\t:{kind}\t:{f}\t{value}\n" for p, kind, f, value in GOOD)


@pytest.mark.parametrize(
    ("events", "verdict"), [(GOOD, "OK"), (STALE, "ILLEGAL"), (REFUSED, "ILLEGAL")]
)
def test_a_register_of_jepsen(events, verdict, tmp_path):
    text = jepsen(*events)
    assert verdict_of(text, tmp_path).verdict == verdict
    assert verdict_of(f"; a comment\n[{text}]", tmp_path).verdict == verdict
    nemesis = "{:type :info, :f :kill, :value nil, :process :nemesis}\n"
    record = "#jepsen.history.Op{:type :info, :f :start, :value #_ 3 nil, :process :nemesis}"
    assert verdict_of(f"({nemesis}{text}\n{record})", tmp_path).verdict == verdict


def test_independent_keys_of_jepsen_are_judged_one_by_one(tmp_path):
    def keyed(key, events):
        return [(p + 10 * key, kind, f, f"[{key} {value}]") for p, kind, f, value in events]

    right = verdict_of(jepsen(*keyed(0, GOOD), *keyed(1, GOOD)), tmp_path)
    assert (right.verdict, right.keys) == ("OK", 2)
    wrong = verdict_of(jepsen(*keyed(0, GOOD), *keyed(1, STALE)), tmp_path)
    assert (wrong.verdict, wrong.key, wrong.illegal_keys) == ("ILLEGAL", "1", 1)


def test_a_log_of_jepsen_as_porcupine_reads_it(tmp_path):
    """There a cas that fails has met another value."""
    assert verdict_of(LOG, tmp_path).verdict == "OK"
    failed = (
        "INFO  jepsen.util - 1\t:invoke\t:cas\t[3 4]\nINFO  jepsen.util - 1\t:fail\t:cas\t[3 4]\n"
    )
    assert verdict_of(LOG + failed, tmp_path).verdict == "ILLEGAL"
    assert verdict_of(LOG + failed.replace("3 4", "4 5"), tmp_path).verdict == "OK"


def key_value(*calls):
    return "".join(
        f'{{:process {p}, :type :{kind}, :f :{f}, :key "{key}", :value {value}}}\n'
        for p, kind, f, key, value in calls
    )


def test_a_key_value_history_of_porcupine(tmp_path):
    calls = [
        (0, "invoke", "get", "a", "nil"),
        (0, "ok", "get", "a", '""'),
        (0, "invoke", "append", "a", '"x 0"'),
        (1, "invoke", "append", "a", '"y 1"'),
        (1, "ok", "append", "a", '"y 1"'),
        (0, "ok", "append", "a", '"x 0"'),
        (2, "invoke", "put", "b", '"z"'),
        (0, "invoke", "get", "a", "nil"),
        (0, "ok", "get", "a", '"y 1x 0"'),
    ]
    right = verdict_of(key_value(*calls), tmp_path)
    assert (right.verdict, right.keys, right.ambiguous) == ("OK", 2, 1)
    lost = [*calls[:-1], (0, "ok", "get", "a", '"y 1"')]
    assert verdict_of(key_value(*lost), tmp_path).verdict == "ILLEGAL"


def line(**fields):
    return json.dumps({"client": 0, "key": "k", **fields}) + "\n"


def test_lines_of_all_kinds(tmp_path):
    text = line(
        operation="cas", argument={"expect": None, "value": "a"}, result=True, call=1
    ).replace("}\n", ', "return": 2, "version": "0.A.1.0"}\n')
    ends = {"return": 9}
    text += line(operation="get", result="a", call=8, **ends)
    text += line(operation="put", argument={"hex": "00ff"}, call=10)
    text += line(operation="get", result={"hex": "00ff"}, call=11, **{"return": 12})
    text += line(operation="delete", error="definite", call=13)
    text += line(operation="get", call=14, error="ambiguous")
    text += line(
        operation="cas",
        argument={"expect": {"version": "0.A.1.0"}, "value": None},
        result=False,
        met={"hex": "00ff"},
        call=15,
        **{"return": 16},
    )
    found = verdict_of(text, tmp_path)
    assert found.verdict == "OK"
    assert (found.calls, found.ambiguous, found.refused) == (7, 2, 1)
    gone = line(operation="get", call=17, **{"return": 18})
    assert verdict_of(text + gone, tmp_path).verdict == "ILLEGAL"


def test_a_number_is_the_same_as_its_text(tmp_path):
    text = line(operation="write", argument=5, call=1, **{"return": 2})
    text += line(operation="read", result="5", call=3, **{"return": 4})
    assert verdict_of(text, tmp_path).verdict == "OK"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no history"),
        ("# A title\n", "is no history"),
        ('{"client": 1}\n', "line 1: Object missing required field `operation`"),
        (line(operation="scan", call=1), "operation = 'scan': write one of get, put"),
        (line(operation="put", call=1), "argument of a put is missing"),
        (line(operation="put", argument=[1], call=1), "argument = [1]: write a text, a number"),
        (line(operation="put", argument={"hex": "0g"}, call=1), "write a text, a number"),
        (line(operation="cas", argument="x", call=1), "argument of a cas = 'x'"),
        (line(operation="get", call=2, **{"return": 1}), "return = 1 is before call = 2"),
        (line(operation="get", call=2, error="perhaps"), "error = 'perhaps'"),
        (line(operation="delete", call=1, **{"return": 2}), "result of a delete = None"),
        (line(operation="get", call=1) + "{,\n", "line 2: JSON is malformed"),
        ('{"history":"epaxos","initial":"full"}\n', "initial = 'full': write absent, other"),
        ("{:process 0}", "line 1: an event has no :type"),
        ("[1]", "1 is no event"),
        ("{:process 0, :type :invoke", "is not closed"),
        ("{:process 0 :type}", "key without a value"),
        ("(]", "closes nothing"),
        ("[" * 60, "more than 50 deep"),
        (jepsen((0, "ok", "read", 1)), "process 0 has not invoked anything"),
        (jepsen(*[(0, "invoke", "read", "nil")] * 2), "line 2: process 0 invokes again"),
        (jepsen((0, "invoke", "txn", "nil")), ":f :txn is unknown"),
        (jepsen((0, "begin", "read", "nil")), ":type :begin is unknown"),
        (jepsen((0, "invoke", "cas", 3)), ":value 3 of a cas: write [expected new]"),
    ],
)
def test_what_is_wrong_is_told_with_the_line(text, said, tmp_path):
    with pytest.raises(ConfigError) as error:
        verdict_of(text, tmp_path)
    assert said in str(error.value)
    assert str(tmp_path / "history") in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.jsonl"):
        read_history(tmp_path / "gone.jsonl")


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "load.jsonl"
    with HistoryWriter(path, OTHER) as history:
        one = Results(1, 7, 3, 1, b"", [], [])
        history.answered("c", Operation.PUT, b"\xff", b"v" * 100, 1, 2, one)
        met = Results(
            0,
            8,
            0,
            2,
            bytes((Status.CONFLICT, Status.MISSING)),
            [b"m", b""],
            [(0, 1, 0), (0, 0, 0)],
        )
        cas = encode_cas((1, 7, 3), b"n")
        history.answered("c", Operation.CAS, b"\xff", cas, 3, 4, met, 0)
        history.answered("c", Operation.GET, b"k", b"", 5, 6, met, 1)
        history.failed("c", Operation.DELETE, b"k", b"", 7, definite=True)
        history.failed("c", Operation.GET, b"k", b"", 7, definite=False)
    found = read_lines([path])
    assert not found.unfinished
    assert found.initial == OTHER
    put, failed = found.keys[b"\xff"]
    assert (put.value, put.version, put.returned) == (short(b"v" * 100), "0.B.7.3", 2)
    assert (failed.expect, failed.value, failed.result) == ("0.B.7.3", b"n", (False, b"m"))
    read, removed = found.keys[b"k"]
    assert (read.kind, read.result, read.version) == ("get", None, "")
    assert removed.refused
    assert removed.returned is None


def test_a_cas_that_met_no_value_says_so(tmp_path):
    path = tmp_path / "load.jsonl"
    with HistoryWriter(path) as history:
        none = Results(0, 8, 0, 1, bytes((Status.CONFLICT,)), [b""], [(0, 0, 0)])
        cas = encode_cas(expect=True, value=b"n")
        history.answered("c", Operation.CAS, b"k", cas, 3, 4, none)
    (call,) = read_lines([path]).keys[b"k"]
    assert (call.expect, call.result) == (True, (False, None))


def test_unlike_values_differ_by_load_client_and_number_and_keep_their_size():
    values = [
        UnlikeValues(label, client).put(b"x" * 40) for label in range(3) for client in range(3)
    ]
    one = UnlikeValues(0, 0)
    values += [one.put(b"x" * 40) for _ in range(1000)][1:]
    assert len(set(values)) == len(values)
    assert {len(value) for value in values} == {40}
    assert len(one.put(b"")) == UnlikeValues.SIZE
    assert one.argument(Operation.GET, b"") == b""


def test_values_are_kept_short_and_stay_unlike():
    long, other = b"a" * 1000, b"a" * 999 + b"b"
    assert short(b"a" * WHOLE_MAX) == b"a" * WHOLE_MAX
    assert short(long) != short(other)
    assert len(short(long)) <= WHOLE_MAX
    assert as_text(b"\xff\x00") == {"hex": "ff00"}


def test_what_a_file_does_not_say_may_have_been_anything(tmp_path):
    path = tmp_path / "history"
    path.write_text(line(operation="get", result="a", call=1, **{"return": 2}))
    assert read_history(path).initial == ANYTHING
