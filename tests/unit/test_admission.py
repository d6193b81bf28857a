"""The pure rules of admission: contended keys, divided runs, full batches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epaxos.core.command import BATCH_ENVELOPE_BYTES, Operation, Payload, commands_bytes
from epaxos.node.admission import HotQueue, Wanted, contended_keys, divide, fill_batches
from epaxos.node.requests import Run
from epaxos.node.runs import batch_of

CODES = {"p": Operation.PUT, "g": Operation.GET, "d": Operation.DELETE}


def run(text, value=b"v"):
    """`px gy`: put x, get y."""
    words = text.split()
    operations = bytes(CODES[word[0]] for word in words)
    keys = [word[1:].encode() for word in words]
    return Run("client", 10, operations, keys, [value] * len(words), 5, 99)


def said(made):
    letters = {int(code): letter for letter, code in CODES.items()}
    return " ".join(letters[code] + key.decode() for code, key in zip(made.operations, made.keys))


def sorted_set(text):
    return sorted({word.encode() for word in text.split()})


@pytest.mark.parametrize(
    ("commands", "written", "read", "queued", "expected"),
    [
        ("px py", "", "", "", ""),
        ("px py", "x", "x", "", "x"),
        ("px gy", "", "y", "", "y"),
        ("gx", "x", "", "", ""),
        ("gx px", "x", "", "", "x"),
        ("px py", "", "", "y", "y"),
        ("gx gy", "", "y", "x z", "x y"),
        ("pa pb pc pd pe", "a d", "", "", "a d"),
    ],
)
def test_contended_keys(commands, written, read, queued, expected):
    """`written`, `read`: the keys on which a write, or a read, would be contended."""
    queue = HotQueue()
    for key in sorted_set(queued):
        queue.add(Wanted((key,), (), None))

    def is_contended(footprint):
        return bool(
            set(footprint.writes) & set(sorted_set(written))
            or set(footprint.reads) & set(sorted_set(read))
        )

    assert sorted(contended_keys([run(commands)], queue, is_contended)) == sorted_set(expected)


def test_one_question_is_enough_where_nothing_is_contended():
    asked = []
    runs = [run(" ".join(f"p{number}" for number in range(100)))]
    assert not contended_keys(runs, HotQueue(), asked.append)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("commands", "hot", "expected"),
    [
        ("px py", "x", [("px", "x", False), ("py", None, False)]),
        ("pa pb px", "x", [("pa pb", None, False), ("px", "x", False)]),
        ("px dx px", "x", [("px dx px", "x", False)]),
        ("px gx gx px", "x", [("px", "x", False), ("gx gx", "x", True), ("px", "x", False)]),
        ("px py px", "x y", [("px", "x", False), ("py", "y", False), ("px", "x", False)]),
    ],
)
def test_divided_runs(commands, hot, expected):
    whole = run(commands)
    parts = divide(whole, set(sorted_set(hot)))
    found = [(said(part), key and key.decode(), reads) for part, key, reads in parts]
    assert found == expected
    offsets = [part.offset - 10 for part, _, _ in parts]
    lengths = [part.count for part, _, _ in parts]
    assert offsets == [sum(lengths[:place]) for place in range(len(parts))]
    assert whole.done
    assert not whole.keys


@pytest.mark.parametrize(
    ("runs", "commands_max", "room_for", "expected", "cut"),
    [
        ([], 2, 9, [], []),
        (["pa", "pb"], 2, 9, [["pa", "pb"]], []),
        (["pa", "pb", "pc"], 2, 9, [["pa", "pb"], ["pc"]], []),
        (["pa pb pc", "pd"], 2, 9, [["pa pb"], ["pc"], ["pd"]], ["pa pb", "pc"]),
        (["pd", "pa pb pc"], 2, 9, [["pd"], ["pa pb"], ["pc"]], ["pa pb", "pc"]),
        (["pa pb", "pc"], 9, 2, [["pa pb"], ["pc"]], []),
        (["pa pb pc"], 9, 2, [["pa pb"], ["pc"]], ["pa pb", "pc"]),
        (["pa"], 9, 0, [["pa"]], ["pa"]),
        (["pa", "pb"], 9, 0, [["pa"], ["pb"]], ["pa", "pb"]),
    ],
)
def test_filled_batches(runs, commands_max, room_for, expected, cut):
    """`room_for`: for so many commands there are bytes enough."""
    bytes_max = BATCH_ENVELOPE_BYTES + room_for * commands_bytes([b"k"], [b"v"])
    made, parts = fill_batches(map(run, runs), commands_max, bytes_max)
    assert [[said(each) for each in batch] for batch in made] == expected
    assert [said(part) for part in parts] == cut


@given(
    st.lists(st.lists(st.integers(0, 90), min_size=1, max_size=6), max_size=6),
    st.integers(1, 6),
    st.integers(1, 200),
)
def test_no_batch_of_several_commands_is_over_a_limit(sizes, commands_max, bytes_max):
    """Every size is that of one value; one run per list."""
    runs = [
        Run(
            "client", 0, b"\1" * len(each), [b"k"] * len(each), [bytes(size) for size in each], 5, 9
        )
        for each in sizes
    ]
    made, _ = fill_batches(runs, commands_max, bytes_max)
    batches = [batch_of(8, 2**63, batch) for batch in made]
    assert [len(a) for batch in batches for a in batch.arguments] == [s for e in sizes for s in e]
    for batch in batches:
        if len(batch.keys) > 1:
            assert len(batch.keys) <= commands_max
            assert len(Payload.of(batch).encoded) <= bytes_max


def test_a_run_is_cut_by_the_weight_of_its_commands_not_by_their_average():
    values = [bytes(12 << 20)] * 3 + [b"v"] * 5000
    heavy = Run("client", 0, b"\1" * len(values), [b"k"] * len(values), values, 5, 99)
    made, _ = fill_batches([heavy], 4096, 4 << 20)
    assert [sum(run.count for run in batch) for batch in made] == [1, 1, 1, 4096, 904]
