"""The verb `sim`: what its commands run, say of a planted bug, and refuse."""

import json
import os
import signal

import pytest

from epaxos.cli import sim_report, sim_workers
from epaxos.cli.main import run as run_verb
from epaxos.sim.soak import run_seeds

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


def run(capsys, *words, command="run"):
    code = run_verb(["sim", command, *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_one_seed_says_its_options_first_and_what_it_met(capsys):
    code, out, err = run(capsys, "--seed", 7, "--protocol", "epaxos")
    assert code == 0
    assert "epaxos · seed 7 · " in err
    assert "process" not in err
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


def fail_late(profile, seeds):
    """In the place of `run_seeds`, in a worker too."""
    if 21 in seeds:
        raise KeyError("a bug of the simulator")
    return run_seeds(profile, seeds)


def die(profile, seeds):
    """The same, and the worker ends."""
    if 31 in seeds:
        os.kill(os.getpid(), signal.SIGKILL)
    return run_seeds(profile, seeds)


def test_seeds_that_the_simulator_fails_on_are_named_and_the_others_kept(capsys, monkeypatch):
    monkeypatch.setattr(sim_workers, "run_seeds", fail_late)
    monkeypatch.setattr(sim_workers, "CHUNK", 2)
    words = ("--first-seed", 19, "--seeds", 20, "--commands", 4, "--protocol", "multipaxos")
    for jobs in (1, 2):
        code, out, err = run(capsys, *words, "--jobs", jobs, "--json")
        document = json.loads(out)
        assert code == 1
        (lost,) = document["not_counted"]
        assert (lost["first_seed"], lost["last_seed"]) == (21, 22)
        assert "KeyError: 'a bug of the simulator'" in lost["error"]
        assert "--commands 4" in lost["again"]
        assert document["protocols"][0]["clean"] >= 2
        assert err.count("raise KeyError") == 1, "where it went wrong is told"
    code, out, _ = run(capsys, *words, "--seeds", 5)
    assert code == 1
    assert "not counted: multipaxos, seeds 21 to 22: KeyError" in out
    assert "seeds clean" in out


def test_a_worker_that_is_killed_takes_only_its_own_seeds_along(capsys, monkeypatch):
    monkeypatch.setattr(sim_workers, "run_seeds", die)
    words = ("--seeds", 200, "--commands", 2, "--protocol", "multipaxos", "--jobs", 1, "--json")
    code, out, _ = run(capsys, *words)
    document = json.loads(out)
    assert code == 1
    assert document["protocols"][0]["clean"] == 30
    assert document["not_counted"][0]["first_seed"] == 31


def test_ctrl_c_while_a_failure_is_cut_down_shows_the_summary(capsys, monkeypatch, careless):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sim_report, "print_failure", interrupt)
    words = ("--protocol", "epaxos", "--seeds", 5, "--plant", careless)
    code, out, _ = run(capsys, *words)
    assert code == 130
    assert "seeds failed" in out
    assert "failed: epaxos sim run --protocol epaxos --seed " in out


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
        (("--seed", "7", "--minutes", "1"), "--seed and --minutes say different things"),
        (("--seed", "7", "--seeds", "2"), "--seed and --seeds say different things"),
        (("--seed", "7", "--first-seed", "2"), "--seed and --first-seed say different things"),
        (("--seeds", "7", "--minutes", "2"), "--seeds and --minutes say different things"),
        (("--topology", "aws-5-2020", "--replicas", "3"), "--topology and --replicas say"),
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


def test_without_a_command_sim_shows_its_help(capsys):
    assert run_verb(["sim"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Usage: epaxos sim ")
    for command in ("run", "replay", "contention", "speed"):
        assert f"  {command} " in said.out
    assert said.err == ""


@pytest.mark.parametrize("words", [("--seeds", "100"), ("--minutes=1",), ("--replay", "results/x")])
def test_an_option_before_a_command_is_answered_with_the_command_to_write(capsys, words):
    assert run_verb(["sim", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"epaxos sim run {words[0]}" in line


@pytest.mark.parametrize(
    ("command", "words", "complaint"),
    [
        ("replay", (), "Missing argument 'DIR'"),
        ("replay", ("x", "--plant", "y"), "No such option: --plant"),
        ("contention", ("--workload", "hot"), "No such option: --workload"),
        ("contention", ("--seconds", "0"), "--seconds"),
        ("contention", ("--topology", "atlantis"), "atlantis"),
        ("speed", ("--seeds", "3"), "No such option: --seeds"),
    ],
)
def test_each_command_has_options_of_its_own(capsys, command, words, complaint):
    code, _, err = run(capsys, *words, command=command)
    assert code == 2
    assert complaint in err


def test_contention_shows_what_the_rule_is_for(capsys):
    words = ("--seconds", 3, "--json")
    code, out, _ = run(capsys, *words, command="contention")
    with_rule = json.loads(out)
    assert code == 0
    code, out, _ = run(capsys, *words, "--unsafe-no-gate", command="contention")
    without = json.loads(out)
    assert code == 0
    assert with_rule["sent"] == without["sent"]
    assert with_rule["answered"] > without["answered"]
    assert with_rule["oldest_us"] < without["oldest_us"]
