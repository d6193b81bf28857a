"""The verb `sim`: what it runs, what it says of a planted bug, what it refuses."""

import json

import pytest

from epaxos.cli.main import run as run_verb

CARELESS = """
from epaxos.protocols.epaxos.replica import EPaxosReplica

class Careless(EPaxosReplica):
    def _acceptor_deps(self, replica, payload, initial):
        return initial
"""


@pytest.fixture
def careless(tmp_path):
    path = tmp_path / "careless.py"
    path.write_text(CARELESS, encoding="utf-8")
    return path


def run(capsys, *words):
    code = run_verb(["sim", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_one_seed_says_its_options_first_and_what_it_met(capsys):
    code, out, err = run(capsys, "--seed", 7, "--protocol", "epaxos")
    assert code == 0
    assert "epaxos · seeds 7 to 7" in err
    assert "faults: all" in err
    assert "seeds clean" in out
    assert "slow path" in out


def test_a_planted_bug_is_caught_shrunken_shown_and_written_out(capsys, careless, tmp_path):
    out_dir = tmp_path / "found"
    words = ("--protocol", "epaxos", "--seeds", 5, "--plant", careless, "--out", out_dir)
    code, out, _ = run(capsys, *words)
    assert code == 1
    assert "events remain" in out
    assert "violated: " in out
    assert f"--plant {careless}" in out
    (test,) = out_dir.glob("test_epaxos_*.py")
    compile(test.read_text(encoding="utf-8"), str(test), "exec")
    (schedule,) = out_dir.glob("*.schedule.json")
    assert json.loads(schedule.read_bytes())["protocol"] == "epaxos"


def test_json_is_one_document(capsys):
    code, out, _ = run(capsys, "--seeds", 2, "--json", "--workload", "one-key")
    document = json.loads(out)
    assert code == 0
    assert [each["protocol"] for each in document["protocols"]] == ["epaxos", "multipaxos"]
    assert all(each["clean"] == 2 for each in document["protocols"])


def test_a_soak_that_never_met_a_situation_fails(capsys):
    code, out, _ = run(capsys, "--seed", 1, "--faults", "none", "--soak")
    assert code == 1
    assert "never met: " in out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--faults", "rain"), "unknown kind of fault 'rain'"),
        (("--workload", "golf"), "unknown workload 'golf'"),
        (("--protocol", "paxi"), "choose one of"),
        (("--replicas", "3,x"), "--replicas takes numbers"),
        (("--replicas", "12"), "--replicas takes numbers"),
        (("--plant", "nowhere.py"), "there is no file nowhere.py"),
        (("--topology", "atlantis"), "atlantis"),
    ],
)
def test_bad_options_are_named(capsys, words, complaint):
    code, _, err = run(capsys, *words)
    assert code == 2
    assert complaint in err


def test_a_file_with_nothing_to_plant_says_what_to_write(capsys, tmp_path):
    path = tmp_path / "empty.py"
    path.write_text("x = 1\n", encoding="utf-8")
    code, _, err = run(capsys, "--protocol", "epaxos", "--plant", path)
    assert code == 2
    assert "EPaxosReplica" in err
