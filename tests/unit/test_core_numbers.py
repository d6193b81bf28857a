"""Numbers from outside: ASCII digits, of a length that anybody would write."""

import pytest

from bench.clusters.faults import parse_fault
from bench.loadtest.options import parse_limits, parse_seconds, parse_steps
from epaxos.core.errors import ConfigError
from epaxos.core.numbers import parse_whole, plain
from epaxos.workload import parse_workload
from topology import TopologyError, find

WRONG = ["1_0", "+1", "٣", "nan", "9" * 5000]


@pytest.mark.parametrize("text", [*WRONG, "-1", "1.0", "01", "", "8", "1 "])
def test_a_whole_number_has_one_spelling_and_a_range(text):
    with pytest.raises(ValueError, match=r"must be a whole number from 0 to 7") as refused:
        parse_whole(text, 0, 7)
    assert len(str(refused.value)) < 120
    assert parse_whole("7", 0, 7) == 7


@pytest.mark.parametrize("text", WRONG)
def test_no_option_takes_what_only_python_reads(text):
    with pytest.raises(ValueError, match="is not a number"):
        plain(text)
    for read in (
        lambda: parse_seconds(f"{text}s", "--time"),
        lambda: parse_steps(f"{text},5"),
        lambda: parse_limits(text, ["x"], "--max-p99"),
        lambda: parse_fault(f"crash:CA@{text}"),
        lambda: parse_workload(f"conflict:{text}"),
        lambda: parse_workload(f"zipf:theta=0.9,keys={text}"),
    ):
        with pytest.raises(ConfigError):
            read()
    with pytest.raises(TopologyError, match="write equidistant like"):
        find(f"equidistant:3,{text}")


def test_what_people_write_is_read():
    assert [float(plain(each)) for each in (" 5", "-0.5", "1e-05", "2.50")] == [5, -0.5, 1e-5, 2.5]
