"""What `epaxos inspect` says of logs made by hand: sound, torn, damaged, foreign."""

import json

import pytest

from epaxos.cli.exits import ExitCode
from epaxos.cli.inspect import _PHASE_OF, LogSummary
from epaxos.cli.main import run
from epaxos.codec import Codec
from epaxos.core.command import Batch, Operation, Payload
from epaxos.core.replica import Executed
from epaxos.core.types import make_ballot
from epaxos.protocols.epaxos import messages as ep
from epaxos.protocols.multipaxos import messages as mp
from epaxos.registry import find_protocol, protocol_names
from epaxos.runtime.identity import DataDirectory, Owner
from epaxos.runtime.wal import Wal


def payload(*keys, number=1):
    codes = bytes([Operation.PUT] * len(keys))
    return Payload.of(Batch(0, number, codes, list(keys), [b"v"] * len(keys)))


EPAXOS = [
    ep.PreAccepted(0, 1, payload(b"x"), (0, 0, 0), (0, 0, 0)),
    ep.PreAccepted(1, 1, payload(b"x", b"y\xff", b"z", b"w"), (1, 0, 0), (1, 0, 0)),
    ep.CommittedShort(0, 1, (0, 0, 0)),
    ep.AcceptedShort(1, 1, 0, (1, 0, 0)),
    ep.Promised(2, [5, 6], make_ballot(3, 1)),
    ep.Accepted(2, 5, make_ballot(3, 1), None, (0, 0, 0)),
    Executed(b"\0", [1]),
]
MULTIPAXOS = [
    mp.Promised(make_ballot(1, 0)),
    mp.Voted(make_ballot(1, 0), 1, payload(b"x")),
    mp.Voted(make_ballot(2, 1), 1, payload(b"x")),
    mp.Voted(make_ballot(1, 0), 2, payload(b"y")),
    mp.Voted(make_ballot(1, 0), 3, payload(b"z")),
    mp.Learned(4, [payload(b"a", b"b"), None]),
    mp.Chosen(2),
    Executed(b"\0", [1]),
]


@pytest.fixture
def make(tmp_path):
    def build(records, protocol="epaxos", close=True, segment_bytes=4096):
        path = tmp_path / "data"
        directory = DataDirectory(path, Owner("c1", 1, 3, protocol))
        wal = Wal(directory.wal_path, "c1", 1, segment_bytes)
        assert not list(wal.replay(Codec(find_protocol(protocol))))
        wal.record_boot(directory.boot)
        directory.advance()
        for record in records:
            wal.append([record])
            wal.sync()
        (wal.close if close else wal.abandon)()
        directory.close()
        return path

    return build


def content(path):
    return {p: p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def document(path, capsys, code=ExitCode.OK):
    before = content(path)
    assert run(["inspect", str(path), "--json"]) == code
    assert content(path) == before
    return json.loads(capsys.readouterr().out)


def test_counts_of_a_log_of_epaxos(make, capsys):
    found = document(make(EPAXOS), capsys)
    assert (found["cluster"], found["replica"], found["n"], found["boot"]) == ("c1", "B", 3, 1)
    assert found["boots"] == [{"boot": 1, "sequence": 1}]
    assert found["records"]["PreAccepted"]["count"] == 2
    assert found["commands"] == 5
    assert found["columns"] == {
        "A": {"first": 1, "last": 1, "instances": 1, "phases": {"executed": 1}},
        "B": {"first": 1, "last": 1, "instances": 1, "phases": {"accepted": 1}},
        "C": {"first": 5, "last": 6, "instances": 2, "phases": {"promised": 1, "accepted": 1}},
    }
    assert found["stopped_in_order"]
    assert found["end"]["torn_bytes"] == 0
    assert found["damage"] is None


def test_counts_of_a_log_of_multipaxos(make, capsys):
    found = document(make(MULTIPAXOS, "multipaxos"), capsys)
    assert found["columns"] == {
        "log": {
            "first": 1,
            "last": 5,
            "instances": 5,
            "phases": {"accepted": 1, "committed": 3, "executed": 1},
        }
    }
    assert found["commands"] == 5


def test_every_record_of_every_protocol_has_a_phase():
    for name in protocol_names():
        for record in (Executed, *find_protocol(name).records):
            assert record.__name__ in _PHASE_OF


def test_several_segments(make, capsys):
    many = [ep.PreAccepted(0, i, payload(b"k" * 400), (), ()) for i in range(1, 30)]
    found = document(make(many), capsys)
    assert len(found["segments"]) > 2
    assert sum(segment["records"] for segment in found["segments"].values()) == 31
    assert found["columns"]["A"]["instances"] == 29


def test_summary_for_people(make, capsys):
    assert run(["inspect", str(make(EPAXOS))]) == ExitCode.OK
    shown = capsys.readouterr()
    for word in ("replica B of 3", "cluster c1", "PreAccepted", "0000000001.wal", "in order"):
        assert word in shown.out
    assert shown.err == ""


def test_records_are_listed(make, capsys):
    assert run(["inspect", str(make(EPAXOS)), "--records"]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(EPAXOS) + 2
    assert "Boot" in lines[0]
    assert "B.1  (PUT x, PUT y\\xff, PUT z, … 4 commands)  initial deps A.1  deps A.1" in lines[2]
    assert "C.5 C.6  b3@B" in lines[5]
    assert "Nop" in lines[6]
    assert "Closed" in lines[-1]


def test_history_of_one_instance(make, capsys):
    path = make(EPAXOS)
    assert run(["inspect", str(path), "--instance", "A.1", "--json"]) == ExitCode.OK
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["kind"] for line in lines] == ["PreAccepted", "CommittedShort", "Executed"]
    assert run(["inspect", str(path), "--instance", "A.99"]) == ExitCode.OK
    assert "A.99 is not in this log" in capsys.readouterr().out
    assert run(["inspect", str(path), "--instance", "99"]) == ExitCode.CONFIG
    assert "--instance" in capsys.readouterr().err


def test_torn_tail_is_told_and_left_alone(make, capsys):
    path = make(EPAXOS, close=False)
    log = LogSummary(path)
    *_, last = log.read()
    file = path / "wal" / last.file
    data = bytearray(file.read_bytes())
    data[last.offset + 34] ^= 0xFF
    file.write_bytes(data)
    found = document(path, capsys)
    assert found["end"]["torn_bytes"] > 0
    assert found["end"]["offset"] == last.offset
    assert not found["stopped_in_order"]
    assert run(["inspect", str(path)]) == ExitCode.OK
    assert "torn tail" in capsys.readouterr().out


def test_damage_names_file_and_offset(make, capsys):
    path = make(EPAXOS)
    third = list(LogSummary(path).read())[2]
    file = path / "wal" / third.file
    data = bytearray(file.read_bytes())
    data[third.offset + 40] ^= 0xFF
    file.write_bytes(data)
    found = document(path, capsys, ExitCode.STORAGE)
    assert f"{file} is corrupt at byte {third.offset}" in found["damage"]
    assert found["columns"]["A"]["instances"] == 1
    assert run(["inspect", str(path)]) == ExitCode.STORAGE
    assert "DAMAGED" in capsys.readouterr().out
    assert run(["inspect", str(path), "--records"]) == ExitCode.STORAGE
    assert f"corrupt at byte {third.offset}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("identity", "word"),
    [
        (None, "no identity.json"),
        ("{", "identity.json is damaged"),
        ('{"cluster": 7}', "identity.json is damaged"),
        (
            '{"cluster": "c", "replica": 0, "n": 3, "protocol": "raftish", "boot": 1}',
            "unknown protocol 'raftish'",
        ),
    ],
)
def test_directory_that_is_none(tmp_path, capsys, identity, word):
    if identity is not None:
        (tmp_path / "identity.json").write_text(identity)
    assert run(["inspect", str(tmp_path)]) == ExitCode.STORAGE
    shown = capsys.readouterr().err
    assert word in shown
    assert shown.count("\n") == 1


def test_parent_of_data_directories_is_answered_with_their_names(make, capsys):
    path = make(EPAXOS)
    assert run(["inspect", str(path.parent)]) == ExitCode.STORAGE
    assert f"did you mean {path}?" in capsys.readouterr().err


def test_log_of_another_replica(make, capsys):
    path = make(EPAXOS)
    text = (path / "identity.json").read_text()
    (path / "identity.json").write_text(text.replace('"replica": 1', '"replica": 2'))
    assert "belongs to cluster c1, replica B" in document(path, capsys, ExitCode.STORAGE)["damage"]
