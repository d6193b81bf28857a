"""Traces and their replay without processes: three nodes in a row of turns, recorded by hand."""

import random
from dataclasses import replace
from zlib import crc32

import msgspec
import pytest

from epaxos.cli.sim_replay import replay
from epaxos.codec import FRAME_HEADER, PROTOCOL_VERSION, encode, encode_frame
from epaxos.core.command import Operation, Results
from epaxos.core.errors import Ambiguous, ConfigError, Definite, StorageError
from epaxos.core.replica import EVERYONE, Decided, Path, Setup
from epaxos.core.types import InstanceId, no_deps
from epaxos.node.node import Node
from epaxos.node.requests import (
    AskGraph,
    AskInstance,
    AskKeys,
    AskStatus,
    AskTransfer,
    Flight,
    Limits,
    QuestionReply,
    Refusal,
    Reply,
    Request,
)
from epaxos.protocols.epaxos import messages as m
from epaxos.protocols.epaxos.replica import EPaxosReplica
from epaxos.protocols.multipaxos import messages as mp
from epaxos.registry import find_protocol
from epaxos.runtime.recorder import Recorder
from epaxos.sim.incarnation import Seen
from epaxos.sim.instance_chart import Event, Observer, chart, concerns, proposal, reaches
from epaxos.sim.replay import Replay
from epaxos.trace import (
    CLOSED,
    FORMAT,
    MAGIC,
    SAID_BYTES_MAX,
    Digest,
    Header,
    Restored,
    TraceEnd,
    TraceReader,
    TraceStep,
    Waiters,
    asked_of,
    question_of,
    said_bytes,
)

REGIONS = ["Here", "There", "Yonder"]
STEP_US = 1000


def header(member=0, protocol="epaxos", **fields):
    known = {
        "version": PROTOCOL_VERSION,
        "cluster": "test",
        "protocol": protocol,
        "member": member,
        "regions": REGIONS,
        "rtt_us": [20_000] * 3,
        "leader": 0,
        "boot": 1,
        "seed": f"seed {member}",
        "batch_commands": 100,
        "batch_bytes": 1 << 20,
        "queued_commands": 100,
        "live_bytes": 1 << 30,
        "gate": False,
        "machine": "here",
    }
    return Header(**{**known, **fields})


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """What a step takes, in the time of the row."""
    monkeypatch.setattr("epaxos.runtime.recorder.clock", lambda: Row.clock + 300)


class Row:
    """Recorded nodes that take turns; what one says, the others hear a turn later."""

    clock = 0

    def __init__(self, path, protocol="epaxos", bytes_max=1 << 20, restored=()):
        spec = find_protocol(protocol)
        self.now = 10 * STEP_US
        self.inboxes = [[], [], []]
        self.replies = []
        self.recorders = []
        for member in range(3):
            head = header(member, protocol)
            setup = Setup(member, 3, (20_000,) * 3, random.Random(head.seed), 0)
            node = Node(spec, setup, head.boot, head.limits)
            recorder = Recorder(node, path / f"{REGIONS[member]}.1.trace", head, bytes_max)
            for record in restored:
                recorder.restore(record)
            self.recorders.append(recorder)

    def turn(self, requests=None, questions=()):
        """Every node takes one step."""
        Row.clock = self.now = self.now + STEP_US
        inboxes, self.inboxes = self.inboxes, [[], [], []]
        for me, recorder in enumerate(self.recorders):
            for source, message in inboxes[me]:
                recorder.receive(source, message, self.now)
            mine = (requests or {}).get(me, [])
            if mine:
                recorder.request(mine, self.now)
            for question in questions:
                recorder.ask(object(), question, self.now)
            deadline = recorder.deadline()
            if deadline is not None and deadline <= self.now:
                recorder.wake(self.now)
            ready = recorder.take(self.now)
            recorder.sending(lambda messages: None)(ready.messages)
            for target, message in ready.messages:
                for other in range(3):
                    if other != me and target in (EVERYONE, other):
                        self.inboxes[other].append((me, message))
            self.replies += ready.replies

    def close(self):
        for recorder in self.recorders:
            recorder.close()


def put(waiter, key, value=b"v", count=1):
    columns = bytes((Operation.PUT,)) * count, [key] * count, [value] * count
    return Request(waiter, *columns, 10**9)


@pytest.fixture(params=["epaxos", "multipaxos"])
def recorded(request, tmp_path):
    row = Row(tmp_path, request.param)
    run(row)
    return tmp_path


def run(row, value=b"v"):
    for turn in range(30):
        requests = None
        if turn in (4, 5, 9):
            requests = {
                i: [put((turn, i), b"hot", value), put((turn, -i - 1), b"k%d" % i)]
                for i in range(3)
            }
        questions = [AskStatus(), AskKeys(), AskInstance(InstanceId(0, 1))] if turn == 20 else ()
        row.turn(requests, questions)
    row.close()


def read(path):
    return TraceReader(path.name, path.read_bytes())


class Forgetful(EPaxosReplica):
    """An acceptor that adds nothing to the deps it was sent."""

    def _acceptor_deps(self, replica, payload, initial):
        return initial


class Failing(EPaxosReplica):
    """Breaks when it hears of slot 2."""

    def receive(self, source, message, now):
        assert getattr(message, "slot", 0) != 2, "slot 2 came"
        super().receive(source, message, now)


def broken(kind):
    return replace(find_protocol("epaxos"), replica=kind)


# Replays -----------------------------------------------------------------------------------------


def test_a_replay_comes_out_as_recorded(recorded, capsys):
    assert replay(recorded, None, json=False) == 0
    said = capsys.readouterr().out
    assert "no difference: 90 steps came out as recorded" in said
    assert "slowest answers" in said
    assert "note:" not in said


def test_all_that_was_said_is_compared(recorded):
    for path in sorted(recorded.iterdir()):
        life = Replay(read(path)).run()
        assert life.divergence is None
        assert life.counts["commands"] == 6
        assert life.counts["answered"] >= 4  # of a follower's, those that a leader was there for
        assert life.counts["records"] > 6
        assert life.counts["sent"] > 6
        assert life.trace.end == CLOSED


def test_another_rule_differs_where_it_first_matters(tmp_path):
    run(Row(tmp_path))
    lives = [Replay(read(path), broken(Forgetful)).run() for path in sorted(tmp_path.iterdir())]
    first = [life.divergence for life in lives]
    assert all(first)
    divergence = lives[0].divergence
    assert divergence.part == "record 1"
    assert divergence.recorded.startswith("PreAccepted B.1")
    assert "initial_deps=0.0.0 deps=" in divergence.recorded
    assert divergence.replayed.endswith("initial_deps=0.0.0 deps=0.0.0")
    assert divergence.recorded != divergence.replayed
    assert all(life.differing >= 1 for life in lives)
    assert all(life.steps == 30 for life in lives)


def test_differences_are_told_with_both_sides(tmp_path, capsys):
    run(Row(tmp_path))
    assert replay(tmp_path, None, json=False, spec=broken(Forgetful)) == 1
    said = capsys.readouterr().out
    assert "Here (boot 1) differs from step " in said
    assert "  recorded  PreAccepted B.1" in said
    assert "  replayed  PreAccepted B.1" in said


def test_a_replay_that_fails_says_where(tmp_path):
    run(Row(tmp_path))
    life = Replay(read(tmp_path / "Here.1.trace"), broken(Failing)).run()
    assert "slot 2 came" in life.failure
    assert (life.divergence.part, life.divergence.recorded) == ("the step", "it went on")
    assert life.steps == 30


def test_a_recorded_failure_is_found_again(tmp_path):
    spec = broken(Failing)
    head = header(1)
    node = Node(spec, Setup(1, 3, (0,) * 3, random.Random(head.seed)), 1, head.limits)
    recorder = Recorder(node, tmp_path / "There.1.trace", head, 1 << 20)
    recorder.wake(1)
    recorder.take(1)
    with pytest.raises(AssertionError):
        recorder.receive(0, m.CommitShort(0, 2, no_deps(3)), 2)
    recorder.close()
    same = Replay(read(recorder.path), spec).run()
    assert (same.divergence, same.steps) == (None, 2)
    assert "slot 2 came" in same.failure
    other = Replay(read(recorder.path)).run()
    assert other.divergence.recorded == "the replica failed in it"


def test_the_log_at_the_start_is_part_of_a_trace(tmp_path):
    batch = Node(find_protocol("epaxos"), Setup(2, 3, (0,) * 3, random.Random(1)), 1, Limits())
    batch.request([put(1, b"old")], 1)
    batch.wake(1)
    (record,) = [r for r in batch.take(1).log if isinstance(r, m.PreAccepted)]
    row = Row(tmp_path, restored=[record])
    run(row)
    for path in sorted(tmp_path.iterdir()):
        life = Replay(read(path)).run()
        assert (life.divergence, life.counts["restored"]) == (None, 1)


def test_long_things_are_compared_by_checksum(tmp_path):
    run(Row(tmp_path), value=b"x" * 5000)
    lives = [Replay(read(path), broken(Forgetful)).run() for path in sorted(tmp_path.iterdir())]
    assert all(life.divergence for life in lives)
    assert lives[0].divergence.recorded.startswith("PreAccepted of 5,")
    assert "checksum" in lives[0].divergence.replayed
    assert Replay(read(tmp_path / "Here.1.trace")).run().divergence is None


# Charts ------------------------------------------------------------------------------------------


def test_the_chart_of_an_instance_tells_its_life(tmp_path, capsys):
    run(Row(tmp_path))
    assert replay(tmp_path, "A.1", json=False) == 0
    said = capsys.readouterr().out
    assert said.startswith("A.1 · Here · PUT hot, PUT k0 · ")
    for sentence in (
        "       0.0   ○ │ │   Here takes commands from a client",
        "Here logs PreAccepted A.1",
        "Here ──▶ all  PreAccept A.1",
        "There ◀── Here  PreAccept A.1",
        "There ──▶ Here  PreAcceptOk A.1",
        "Here decides A.1",
        "Yonder learns A.1",
        "Yonder executes A.1",
        "       6.3   ◆ │ │   Here answers 1 command, 6.3 ms after it came",
    ):
        assert sentence in said, sentence
    assert "B.1 payload" not in said


def test_a_slot_of_a_leader_is_an_instance_too(tmp_path, capsys):
    run(Row(tmp_path, "multipaxos"))
    assert replay(tmp_path, "2", json=True) == 0
    document = msgspec.json.decode(capsys.readouterr().out)
    does = {(event["replica"], event["does"]) for event in document["instance"]["events"]}
    assert {(a, what) for a in "ABC" for what in ("executes", "learns")} <= does
    assert ("A", "sends") in does


def test_an_instance_that_is_not_there(tmp_path):
    run(Row(tmp_path))
    with pytest.raises(ConfigError, match=r"A\.99 is in none of these traces; A has slots up to"):
        replay(tmp_path, "A.99", json=False)
    with pytest.raises(ConfigError, match="--instance: 'x' is not an instance"):
        replay(tmp_path, "x", json=False)


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (m.PreAcceptOk(0, 7, no_deps(3)), True),
        (m.PreAcceptOk(1, 7, no_deps(3)), False),
        (m.Recover(0, [6, 7], 17), True),
        (m.RecoverOk(0, 17, [m.Vote(7, 0, 0, None, (), None)]), True),
        (m.RecoverOk(0, 17, []), False),
        (m.ValidateOk(2, 1, 17, [m.Objection(0, 7, True)]), True),
        (m.Progress(no_deps(3), no_deps(3), no_deps(3), no_deps(3), 1, no_deps(3)), False),
        (mp.Learn(6, [None, None]), True),
        (mp.Learn(6, [None]), False),
        (mp.AcceptOk(17, 3, 9), True),
        (mp.Promise(17, 1, 9, 0, [mp.Vote(7, 17, None)]), True),
    ],
)
def test_concerns(thing, expected):
    assert concerns(thing, InstanceId(0, 7)) is expected


def test_reaches():
    assert reaches(mp.CommitIndex(17, 7), InstanceId(0, 7))
    assert reaches(mp.Chosen(9), InstanceId(0, 7))
    assert not reaches(mp.CommitIndex(17, 6), InstanceId(0, 7))
    assert not reaches(m.Recover(0, [9], 17), InstanceId(0, 7))


def test_sends_to_several_are_one_line():
    events = [
        Event(1000, 0, "sends", "Recover", 1),
        Event(1000, 0, "sends", "Recover", 2),
        Event(1000, 0, "sends", "Commit", 2),
        Event(31_500, 1, "waits", "with A.7 for B.3"),
    ]
    lines = list(chart(events, REGIONS))
    assert lines[0] == "A Here · B There · C Yonder"
    assert lines[2] == "       0.0   ▶ │ │   Here ──▶ There, Yonder  Recover"
    assert lines[3] == "       0.0   ▶ │ │   Here ──▶ Yonder  Commit"
    assert lines[4] == "      30.5   │ … │   There waits with A.7 for B.3"
    assert len(lines) == 5
    assert proposal([]) is None


def test_what_holds_an_instance_up_is_told():
    class Blocked:
        def blocked(self):
            return {InstanceId(0, 7): InstanceId(1, 3)}

    decided = Decided(0, 7, (6, 3, 0), None, Path.LEARNED)
    blocker = Decided(1, 3, (0, 2, 0), None, Path.RECOVERED)
    first = Seen([decided], [], [])
    later = Seen([blocker], [blocker, decided], [])
    observer = Observer(InstanceId(0, 7))
    nothing = Node(find_protocol("epaxos"), Setup(0, 3, (0,) * 3, random.Random(1)), 1, Limits())
    nothing.wake(0)
    ready = nothing.take(0)
    observer.step(2, TraceStep(5, [], None, None, None), ready, first, Blocked())
    observer.step(2, TraceStep(9, [], None, None, 3), ready, later, Blocked())
    assert [(event.kind, event.text) for event in observer.finish()] == [
        ("learns", "A.7, as Nop"),
        ("waits", "with A.7 for B.3, which is not decided here"),
        ("decides", "B.3: A.7 waits for it (recovered)"),
        ("executes", "A.7"),
    ]


# The file ----------------------------------------------------------------------------------------


def frames(*bodies):
    return MAGIC + b"".join(encode_frame(body) for body in bodies)


def step(now=1):
    return TraceStep(now, [], None, None, None)


def steps_of(data):
    reader = TraceReader("x.trace", data)
    list(reader.records())
    return reader, list(reader.steps())


def test_a_whole_file():
    reader, steps = steps_of(frames(header(), step(1), step(2), TraceEnd(CLOSED)))
    assert [each.now for each in steps] == [1, 2]
    assert (reader.end, reader.torn, reader.damage) == (CLOSED, None, None)


def test_records_come_before_steps():
    reader = TraceReader("x", frames(header(), Restored([b"a"]), Restored([b"b"]), step()))
    assert list(reader.records()) == [b"a", b"b"]
    assert len(list(reader.steps())) == 1
    assert reader.end is None
    amid, _ = steps_of(frames(header(), step(), Restored([])))
    assert "Restored stands amid the steps" in amid.damage


def test_every_torn_end_is_cut_and_named():
    whole = frames(header(), step(1))
    full = frames(header(), step(1), step(2))
    for size in range(len(whole) + 1, len(full)):
        reader, steps = steps_of(full[:size])
        assert len(steps) == 1
        assert f"the frame at byte {len(whole)} is not complete" in reader.torn
        assert f"last {size - len(whole)} bytes" in reader.torn
        assert reader.damage is None


def test_every_flipped_byte_is_noticed():
    whole = frames(header(), step(1))
    full = frames(header(), step(1), step(2), step(3))
    for at in range(len(whole), len(frames(header(), step(1), step(2)))):
        data = bytearray(full)
        data[at] ^= 0x40
        reader, steps = steps_of(bytes(data))
        assert len(steps) == 1
        assert f"byte {len(whole)}" in (reader.damage or reader.torn)


def test_what_decodes_to_nonsense_is_damage():
    body = b"\x93\x09\x01\x02"
    bad = FRAME_HEADER.pack(len(body), crc32(body)) + body
    reader, steps = steps_of(frames(header()) + bad)
    assert steps == []
    assert f"x.trace is damaged at byte {len(frames(header()))}: " in reader.damage


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "byte 0 does not begin a trace"),
        (b"GIF89a...", "byte 0 does not begin a trace"),
        (MAGIC[:-1] + bytes((FORMAT + 1,)), f"format {FORMAT + 1}, this version reads"),
        (MAGIC, "byte 8 has no header"),
        (frames(header())[:-1], "the frame at byte 8 is not complete"),
        (frames(step()), "byte 8 has no header"),
        (frames(header(version=PROTOCOL_VERSION + 1)), "its messages have version"),
    ],
)
def test_what_is_no_trace_is_refused(data, sentence):
    with pytest.raises(StorageError, match=f"trace x.*{sentence}"):
        TraceReader("x", data)


def test_damage_ends_with_its_own_exit(tmp_path, capsys):
    run(Row(tmp_path))
    path = tmp_path / "There.1.trace"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match=r"There\.1\.trace is damaged at byte \d+"):
        replay(tmp_path, None, json=False)
    assert "no difference" in capsys.readouterr().out


def test_traces_that_do_not_belong_together_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no \.trace files with content in it"):
        replay(tmp_path, None, json=False)
    with pytest.raises(ConfigError, match="name a directory"):
        replay(tmp_path / "nowhere", None, json=False)
    (tmp_path / "empty.trace").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no \.trace files with content in it"):
        replay(tmp_path, None, json=False)
    one = tmp_path / "one.trace"
    one.write_bytes(frames(header(), step()))
    (tmp_path / "two.trace").write_bytes(frames(header(cluster="other"), step()))
    with pytest.raises(ConfigError, match="give each cluster its own directory"):
        replay(tmp_path, None, json=False)
    (tmp_path / "two.trace").write_bytes(frames(header(), step()))
    with pytest.raises(ConfigError, match="are both boot 1 of Here"):
        replay(tmp_path, None, json=False)


def test_clocks_of_several_machines_do_not_compare(tmp_path, capsys):
    for member, machine in ((0, "here"), (1, "there")):
        (tmp_path / f"{member}.trace").write_bytes(frames(header(member, machine=machine)))
    (tmp_path / "2.trace").write_bytes(b"")
    assert replay(tmp_path, None, json=False) == 0
    said = capsys.readouterr().out
    assert "2.trace is empty" in said
    assert "several machines" in said
    assert "no trace of Yonder" in said
    assert "was not closed" in said


# Parts -------------------------------------------------------------------------------------------


def test_waiters_are_forgotten_with_their_last_answer():
    waiters = Waiters()
    assert (waiters.add("a", 3), waiters.add("b", 1)) == (1, 2)
    flight = Flight(1, None, [], 0)
    part = Reply("a", 0, Results(0, 1, 0, 2, b"", [], []), 0, flight)
    assert waiters.settle(part) == 1
    assert waiters.settle(Refusal("a", 2, 1, Ambiguous("late"), "outcome-unknown")) == 1
    assert waiters.settle(QuestionReply("b", None, Definite("no"))) == 2
    with pytest.raises(KeyError):
        waiters.settle(part)
    assert waiters.add("a", 0) == 3
    assert waiters.settle(Refusal("a", 0, 0, Definite("empty"), "invalid")) == 3


@pytest.mark.parametrize(
    "question",
    [AskStatus(), AskKeys(), AskGraph(7), AskTransfer(2), AskInstance(InstanceId(1, 3))],
)
def test_questions_come_back(question):
    assert question_of(asked_of(question, 5)) == question


def test_what_is_long_is_kept_as_a_checksum():
    assert said_bytes("kind", b"x" * SAID_BYTES_MAX) == b"x" * SAID_BYTES_MAX
    long = b"x" * (SAID_BYTES_MAX + 1)
    assert said_bytes("kind", long) == Digest("kind", len(long), crc32(long))


def test_limits_come_back():
    head = header(gate=True, batch_commands=7)
    assert head.limits == Limits(
        batch_commands=7, batch_bytes=1 << 20, queued_commands=100, live_bytes=1 << 30, gate=True
    )
    assert msgspec.msgpack.decode(encode(head), type=Header) == head


# The recorder ------------------------------------------------------------------------------------


def test_a_recording_ends_at_its_limit_and_the_replica_goes_on(tmp_path, capsys):
    row = Row(tmp_path, bytes_max=3000)
    run(row)
    assert sum(isinstance(reply, Reply) for reply in row.replies) >= 18
    for path in sorted(tmp_path.iterdir()):
        assert path.stat().st_size <= 3000
        reader = read(path)
        life = Replay(reader).run()
        assert life.divergence is None
        assert 0 < life.steps < 30
        assert "reached record_mib" in reader.end
    capsys.readouterr()
    assert replay(tmp_path, None, json=False) == 0
    assert "ends early" in capsys.readouterr().out


def test_a_disk_that_fails_ends_the_recording_only(tmp_path):
    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def close(self):
            raise OSError(28, "No space left on device")

    row = Row(tmp_path)
    for recorder in row.recorders:
        recorder._file.close()
        recorder._file = Full()
    run(row, value=b"x" * 50_000)
    assert sum(isinstance(reply, Reply) for reply in row.replies) >= 18
    assert all(recorder._file is None for recorder in row.recorders)


def test_a_bug_in_recording_ends_the_recording_only(tmp_path, monkeypatch):
    row = Row(tmp_path)
    row.turn()

    def settle(self, answer):
        raise KeyError("who?")

    monkeypatch.setattr(Waiters, "settle", settle)
    run(row)
    assert sum(isinstance(reply, Reply) for reply in row.replies) >= 18


def test_a_trace_is_never_written_over(tmp_path):
    for _ in range(2):
        Row(tmp_path).close()
    assert sorted(path.name for path in tmp_path.iterdir())[:2] == [
        "Here.1-2.trace",
        "Here.1.trace",
    ]


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"record = .*name a directory that can be written"):
        Row(tmp_path / "file" / "below")
