"""Answers that are encoded as they are taken: cut by bytes, nothing lost, nothing kept for ever."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from epaxos.codec import ClientAnswer, ClientRefusal, decode_client, split_frames
from epaxos.core.command import Results, Status
from epaxos.runtime.unread import CHUNK_BYTES, AnswerQueue, UnreadDeadline

PIECE = CHUNK_BYTES // 8


def found(first, sizes):
    """The answer to GETs of values of these sizes, a slice of a larger batch."""
    count = len(sizes)
    values = [bytes([i % 256]) * size for i, size in enumerate(sizes)]
    versions = [(1, first + 1, i) for i in range(count)]
    results = Results(0, 9, 5, count, bytes([Status.OK]) * count, values, versions)
    return ClientAnswer(first, results, 0, 11, 22)


def written(first, count):
    """The answer to PUTs."""
    return ClientAnswer(first, Results(0, 9, 0, count, b"", [], []), 0, 11, 22)


def rows(frames):
    """What each command was told, in the order of the frames."""
    told = []
    for frame in frames:
        if isinstance(frame, ClientRefusal):
            told += [(frame.first + i, frame.code) for i in range(frame.count)]
            continue
        results = frame.results
        for i in range(results.count):
            cells = (None, None, None)
            if results.values:
                cells = (results.statuses[i], results.values[i], results.versions[i])
            told.append((frame.first + i, results.index + i, *cells))
    return told


def drain(queue):
    """Everything, as a client reads it; and the sizes of the chunks."""
    frames, sizes = [], []
    while queue:
        left = queue.bytes
        data, commands = queue.encode()
        assert queue.bytes < left
        bodies, taken = split_frames(bytearray(data), len(data))
        assert taken == len(data)
        part = [decode_client(body) for body in bodies]
        assert len(rows(part)) == commands > 0
        frames += part
        sizes.append(len(data))
    assert queue.bytes == 0
    return frames, sizes


@given(
    st.lists(
        st.one_of(
            st.lists(st.integers(0, 3 * PIECE), min_size=1, max_size=30),
            st.lists(
                st.sampled_from([0, CHUNK_BYTES - 33, CHUNK_BYTES - 32, CHUNK_BYTES]), min_size=1
            ),
            st.integers(1, 5000),
            st.just("refused"),
        ),
        max_size=6,
    )
)
def test_every_command_is_told_what_it_would_be_in_one_piece(drawn):
    queue, whole, first = AnswerQueue(), [], 0
    for each in drawn:
        if each == "refused":
            frame, count = ClientRefusal(first, 3, True, "overloaded", "later"), 3
        elif isinstance(each, int):
            frame, count = written(first, each), each
        else:
            frame, count = found(first, each), len(each)
        queue.add(frame)
        whole.append(frame)
        first += count
    frames, sizes = drain(queue)
    assert rows(frames) == rows(whole)
    assert all(size <= CHUNK_BYTES + 200 for size in sizes)


def test_a_value_larger_than_a_chunk_goes_alone():
    queue = AnswerQueue()
    queue.add(found(0, [10, 5 * CHUNK_BYTES, 10]))
    frames, sizes = drain(queue)
    assert [frame.results.count for frame in frames] == [1, 1, 1]
    assert sizes[1] < 5 * CHUNK_BYTES + 200


def test_small_answers_share_one_write():
    queue = AnswerQueue()
    for i in range(100):
        queue.add(found(i, [100]))
    _, commands = queue.encode()
    assert commands == 100
    assert not queue


def test_values_are_not_copied_while_they_wait():
    queue, value = AnswerQueue(), b"v" * CHUNK_BYTES
    results = Results(0, 9, 0, 5000, b"\0" * 5000, [value] * 5000, [(0, 1, 0)] * 5000)
    queue.add(ClientAnswer(0, results, 0, 1, 2))
    for told in range(1, 11):
        data, commands = queue.encode()
        assert (len(data) // CHUNK_BYTES, commands) == (1, 1)
        assert queue.bytes == (5000 - told) * (CHUNK_BYTES + 32)
    assert results.values[17] is value


class FakeWire:
    """A transport whose unsent bytes are as the test says."""

    def __init__(self):
        self.unsent = 100_000

    def get_write_buffer_size(self):
        return self.unsent


async def test_who_takes_something_keeps_the_connection_and_who_takes_nothing_loses_it(monkeypatch):
    monkeypatch.setattr("epaxos.runtime.unread.UNREAD_DEADLINE_S", 0.001)
    wire, ends, looks = FakeWire(), [], 0

    class SlowReader(UnreadDeadline):
        __slots__ = ()

        def begin(self, wire):
            nonlocal looks
            looks += 1
            super().begin(wire)
            if looks < 5:
                wire.unsent -= 1

    deadline = SlowReader(ends.append)
    deadline.begin(wire)
    async with asyncio.timeout(10):
        while not ends:  # noqa: ASYNC110 # a timer has no event
            await asyncio.sleep(0.001)
    assert looks == 5
    assert "read nothing of its answers" in ends[0]


async def test_who_reads_on_is_not_watched(monkeypatch):
    monkeypatch.setattr("epaxos.runtime.unread.UNREAD_DEADLINE_S", 0.001)
    ends = []
    deadline = UnreadDeadline(ends.append)
    deadline.begin(FakeWire())
    deadline.cancel()
    await asyncio.sleep(0.02)
    assert ends == []
