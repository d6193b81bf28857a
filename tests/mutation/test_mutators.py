"""The mutators produce what they say, and what they produce is noticed."""

import ast
import json
import subprocess
import sys
import tomllib

import pytest

from epaxos.core.quorum import quorums
from tests.mutation.__main__ import REASONS
from tests.mutation.mutators import mutants_of
from tests.mutation.plan import TARGETS, target_of
from tests.mutation.sandbox import ROOT

MODULE = "epaxos/protocols/example.py"
SOURCE = """
class Example:
    def decide(self, votes: dict, low: int | None) -> int:
        assert low != 3
        if low is None or len(votes) < self.sizes.slow <= 5:
            self.out.record(votes)
            out.note(votes)
            self.kept.record(votes)
        return max(votes) if low not in votes else 0
"""


def changes(module, source):
    return {(mutant.kind, mutant.before, mutant.after) for mutant in mutants_of(module, source)}


def test_every_kind_of_change_and_nothing_else():
    chain = "len(votes) < self.sizes.slow <= 5"
    assert changes(MODULE, SOURCE) == {
        ("compare", "low is None", "low is not None"),
        ("compare", chain, "len(votes) <= self.sizes.slow <= 5"),
        ("compare", chain, "len(votes) < self.sizes.slow < 5"),
        ("compare", "low not in votes", "low in votes"),
        ("quorum", chain, "len(votes) < self.sizes.slow + 1 <= 5"),
        ("quorum", chain, "len(votes) < self.sizes.slow - 1 <= 5"),
        ("drop", "self.out.record(votes)", "pass"),
        ("note", "self.out.record(votes)", "self.out.note(votes)"),
        ("drop", "out.note(votes)", "pass"),
        ("extreme", "max(votes)", "min(votes)"),
    }


def test_numbers_count_only_where_they_are_of_quorums_and_ballots():
    source = "SIZE = 16\ndef f(n):\n    return (n - 1) // 2 if n > 0 else covers(int.__ge__, n)\n"
    assert changes("epaxos/core/types.py", source) == {
        ("quorum", "SIZE = 16", "SIZE = 17"),
        ("quorum", "SIZE = 16", "SIZE = 15"),
        ("quorum", "n - 1", "n - 2"),
        ("quorum", "n - 1", "n - 0"),
        ("quorum", "(n - 1) // 2", "(n - 1) // 3"),
        ("quorum", "(n - 1) // 2", "(n - 1) // 1"),
        ("compare", "n > 0", "n >= 0"),
        ("quorum", "n > 0", "n > 1"),
        ("quorum", "n > 0", "n > -1"),
        ("compare", "int.__ge__", "int.__gt__"),
    }
    assert changes(MODULE, source) == {("compare", "n > 0", "n >= 0")} | {
        ("compare", "int.__ge__", "int.__gt__")
    }


def test_syncs_are_left_out_in_the_runtime_alone():
    source = "def f(self, fd):\n    os.fdatasync(fd)\n    self.sync()\n    sync_directory(fd)\n"
    assert {before for _, before, _ in changes("epaxos/runtime/wal.py", source)} == {
        "os.fdatasync(fd)",
        "self.sync()",
        "sync_directory(fd)",
    }
    assert not changes(MODULE, source)


def test_each_mutant_is_one_change_of_the_whole_module():
    plain = ast.unparse(ast.parse(SOURCE)).splitlines()
    for mutant in mutants_of(MODULE, SOURCE):
        lines = ast.unparse(mutant.damaged()).splitlines()
        assert len(lines) == len(plain)
        assert sum(a != b for a, b in zip(lines, plain)) == 1
        compile(mutant.damaged(), MODULE, "exec")


def test_keys_tell_mutants_apart_and_do_not_depend_on_lines():
    source = "def f(a, b):\n    return a < b or a < b\n"
    keys = [mutant.key for mutant in mutants_of(MODULE, source)]
    assert keys == [f"{MODULE}::f::compare::a < b -> a <= b{more}" for more in ("", " #2")]
    assert [mutant.key for mutant in mutants_of(MODULE, "X = 1\n\n" + source)] == keys


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.module)
def test_every_target_exists_and_has_mutants_with_keys_of_their_own(target):
    mutants = mutants_of(target.module, (ROOT / target.module).read_text("utf-8"))
    assert mutants
    assert len({mutant.key for mutant in mutants}) == len(mutants)
    for name in target.tests:
        assert (ROOT / name).exists(), name


def test_reasons_are_of_mutants_that_exist():
    """A reason for a mutant that is gone says nothing."""
    reasons = tomllib.loads(REASONS.read_text("utf-8"))
    keys = {
        mutant.key
        for target in TARGETS
        for mutant in mutants_of(target.module, (ROOT / target.module).read_text("utf-8"))
    }
    assert not [key for key in reasons if key not in keys]


def test_every_mutant_of_the_sizes_gives_other_sizes():
    """Without a sandbox: `quorums` of each mutant is not the true one for some n."""

    def sizes(function):
        found = []
        for n in range(11):
            try:
                found.append(tuple(function(n)))
            except Exception as error:
                found.append(type(error).__name__)
        return found

    source = (ROOT / "epaxos/core/quorum.py").read_text("utf-8")
    damaged = [m for m in mutants_of("epaxos/core/quorum.py", source) if "::quorums::" in m.key]
    assert len(damaged) > 20
    for mutant in damaged:
        names = {"__name__": "damaged"}
        exec(compile(mutant.damaged(), "damaged", "exec"), names)
        assert sizes(names["quorums"]) != sizes(quorums), mutant.key


JUDGE = """
import json
from pathlib import Path
from tests.mutation.mutators import mutants_of
from tests.mutation.plan import Target
from tests.mutation.sandbox import copy_tree, judge, move_into

quorum = Target("epaxos/core/quorum.py", ("tests/unit/test_core_quorum.py",), ())
words = Target("epaxos/core/types.py", ("tests/unit/test_core_types.py",), ())
with copy_tree() as folder:
    tree = Path(folder)
    move_into(tree, [quorum, words])
    found = [judge(tree, quorum, None, 0, 60)]
    for target, before in ((quorum, "n - e"), (words, "REPLICAS_MAX = 9")):
        mutants = mutants_of(target.module, (tree / target.module).read_text("utf-8"))
        mutant = next(each for each in mutants if each.before == before)
        found.append(judge(tree, target, mutant, 0, 60))
    print(json.dumps([each[:2] for each in found]))
"""


@pytest.mark.timeout(900)  # a machine that is busy with other things takes its time
def test_a_mutant_of_the_quorums_is_killed_and_the_true_module_is_not():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    done = subprocess.run(
        [sys.executable, "-c", JUDGE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=840,
        check=True,
    )
    whole, function, constant = json.loads(done.stdout)
    assert whole == ["survived", "-"]
    assert function[0] == "killed"
    assert function[1].startswith("tests/unit/test_core_quorum.py::")
    assert constant[0] == "killed"
    assert constant[1].startswith("tests/unit/test_core_types.py::")


def test_results_may_not_lie_in_the_checkout():
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutation", "--out", "results.jsonl", "--report"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "in the checkout" in done.stderr


def test_a_target_is_named_by_the_end_of_its_path():
    assert target_of("quorum.py").module == "epaxos/core/quorum.py"
    assert target_of("epaxos/replica.py").module == "epaxos/protocols/epaxos/replica.py"
    with pytest.raises(KeyError):
        target_of("replica.py")
