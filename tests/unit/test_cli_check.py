"""`epaxos check` as a person runs it."""

import json
import os
import threading

import pytest

from epaxos.cli.main import run

PUT = {"client": "a", "operation": "put", "key": "x", "argument": "v1", "call": 1, "return": 2}
READ = {"client": "b", "operation": "get", "key": "x", "result": "v1", "call": 3, "return": 4}
NOTHING = READ | {"result": None, "call": 5, "return": 6}


@pytest.fixture
def checked(tmp_path, capsys):
    def check(*lines, options=()):
        path = tmp_path / "history.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        code = run(["check", str(path), *options])
        return code, capsys.readouterr()

    return check


def test_what_is_right_is_ok(checked):
    code, said = checked(PUT, READ)
    assert code == 0
    assert "OK: 2 calls on 1 keys" in said.out


def test_what_is_wrong_shows_the_calls_and_ends_with_1(checked):
    code, said = checked(PUT, READ, NOTHING)
    assert code == 1
    assert "ILLEGAL: 3 calls on 1 keys; no order explains" in said.out
    assert "get = v1" in said.out
    assert "get = nothing" in said.out


def test_the_document_says_the_same(checked):
    code, said = checked(PUT, READ, NOTHING, options=("--json",))
    document = json.loads(said.out)
    assert code == 1
    assert document["verdict"] == "ILLEGAL"
    assert document["key"] == "x"
    assert {"client": "b", "what": "get = nothing", "called": 5, "returned": 6} in document["shown"]


def test_what_was_before_can_be_said(checked):
    assert checked(READ)[0] == 0
    assert checked(READ, options=("--initial", "absent"))[0] == 1
    code, said = checked(READ, options=("--initial", "full"))
    assert code == 2
    assert "write absent, other or unknown" in said.err


def test_an_exhausted_budget_is_no_pass(checked):
    deletes = [
        {
            "client": n,
            "operation": "delete",
            "key": "x",
            "result": n % 2 == 0,
            "call": 0,
            "return": 9,
        }
        for n in range(6)
    ]
    puts = [PUT | {"argument": f"v{n % 3}", "call": 0, "return": 9} for n in range(6)]
    reads = [READ | {"result": f"v{n % 3}", "call": 0, "return": 9} for n in range(6)]
    unsaid = {"argument": {"expect": None, "value": "w"}, "result": False, "call": 0, "return": 9}
    calls = [*deletes, *puts, *reads, PUT | {"operation": "cas"} | unsaid]
    options = ("--budget", "1", "--initial", "absent")
    late = [READ | {"result": f"v{n}", "call": 10 + n, "return": 10 + n} for n in range(2)]
    code, said = checked(*calls, *late, options=options)
    assert code == 1
    assert "UNKNOWN" in said.out
    assert "undecided within the budget" in said.out


def test_several_files_are_one_history(tmp_path, capsys):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, line in zip(paths, (PUT, READ), strict=True):
        path.write_text(json.dumps(line) + "\n")
    assert run(["check", *map(str, paths), "--initial", "absent"]) == 0
    assert run(["check", str(paths[1]), "--initial", "absent"]) == 1
    capsys.readouterr()


def test_a_file_that_is_no_history_is_named(tmp_path, capsys):
    path = tmp_path / "notes.txt"
    path.write_text("dear diary")
    assert run(["check", str(path)]) == 2
    assert "notes.txt is no history" in capsys.readouterr().err


@pytest.mark.parametrize("verdict", ["OK", "ILLEGAL"])
def test_a_pipe_is_read_once_and_to_its_end(verdict, tmp_path, capsys):
    """What is read twice from `epaxos check <(zcat history.gz)` is empty the second time."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    lines = (PUT, READ) if verdict == "OK" else (PUT, READ, NOTHING)
    written = "".join(json.dumps(line) + "\n" for line in lines)
    writer = threading.Thread(target=path.write_text, args=(written,))
    writer.start()
    try:
        run(["check", str(path)])
    finally:
        writer.join()
    assert f"{verdict}: {len(lines)} calls on 1 keys" in capsys.readouterr().out
