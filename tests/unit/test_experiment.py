"""Sweeps from files and from Python: what is run, in which order, and what is told when wrong."""

import re
from dataclasses import fields

import pytest

from bench import Experiment
from bench.trials.experiment import built_in
from bench.trials.trial import Trial
from epaxos.core.errors import ConfigError
from tests.house.sources import ROOT


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_lists_are_swept_and_everything_else_is_fixed():
    experiment = Experiment(
        "mine", workload=["conflict:0", "conflict:2"], replicas=[3, 5], rate=7, simulated=True
    )
    found = [(each.workload, each.replicas, each.rate) for each in experiment.configurations]
    assert found == [
        ("conflict:0", 3, 7.0),
        ("conflict:0", 5, 7.0),
        ("conflict:2", 3, 7.0),
        ("conflict:2", 5, 7.0),
    ]


def test_a_timeline_is_one_value_and_lists_of_timelines_are_swept():
    one = Experiment("mine", faults=["slow:CA@0-1,factor=2", "pause:JP@1-2"])
    assert [each.faults for each in one.configurations] == [
        ("slow:CA@0-1,factor=2", "pause:JP@1-2")
    ]
    two = Experiment("mine", faults=[[], ["pause:JP@1-2"]])
    assert [each.faults for each in two.configurations] == [(), ("pause:JP@1-2",)]


def test_a_leader_is_swept_only_where_there_is_one_and_named_once():
    experiment = Experiment(
        "mine", protocol=["epaxos", "multipaxos"], leader=["best", "CA", "worst"]
    )
    found = [(each.protocol, each.leader) for each in experiment.configurations]
    # California is the best place: it is run once.
    assert found == [("epaxos", "best"), ("multipaxos", "best"), ("multipaxos", "worst")]


def test_cases_change_parts_of_the_sweep():
    experiment = Experiment(
        "mine",
        protocol="multipaxos",
        cases=[{"replicas": 3, "leader": "CA"}, {"replicas": 5, "leader": ["CA", "JP"]}],
    )
    found = [(each.replicas, each.leader) for each in experiment.configurations]
    assert found == [(3, "CA"), (5, "CA"), (5, "JP")]


def test_repeats_are_outermost_with_seeds_of_their_own_and_orders_of_their_own():
    experiment = Experiment("mine", repeats=3, seed=10, rate=[1, 2, 3, 4, 5, 6], simulated=True)
    trials = experiment.trials()
    seeds = [trial.seed for trial in trials]
    assert seeds == [10] * 6 + [11] * 6 + [12] * 6
    orders = [tuple(trial.rate for trial in trials[at : at + 6]) for at in (0, 6, 12)]
    assert all(sorted(order) == [1, 2, 3, 4, 5, 6] for order in orders)
    assert len(set(orders)) == 3
    assert trials == experiment.trials()


def test_a_file_and_python_say_the_same(tmp_path):
    path = write(
        tmp_path,
        '[experiment]\nname = "mine"\nrepeats = 2\nseed = 5\n'
        '[trial]\nsimulated = true\nrate = [10, 20]\n[[case]]\nworkload = "conflict:2"\n',
    )
    ours = Experiment(
        "mine",
        repeats=2,
        seed=5,
        simulated=True,
        rate=[10, 20],
        cases=[{"workload": "conflict:2"}],
    )
    assert Experiment.load(path).trials() == ours.trials()
    assert Experiment.load(str(path)).document() == ours.document()


def test_topology_files_are_found_beside_the_experiment(tmp_path):
    (tmp_path / "two.toml").write_text(
        "[regions.a]\n[regions.b]\n[links.a-b]\nrtt_ms = 20\n", encoding="utf-8"
    )
    path = write(tmp_path, '[experiment]\nname = "mine"\n[trial]\ntopology = "two.toml"\n')
    (trial,) = Experiment.load(path).configurations
    assert [region.name for region in trial.sites.regions] == ["a", "b"]


@pytest.mark.parametrize("name", built_in())
def test_built_in_experiments_are_whole(name):
    experiment = Experiment.load(name)
    assert experiment.name == name
    assert experiment.title
    assert experiment.trials()


HEADER = '[experiment]\nname = "mine"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[experiment", "is not TOML"),
        ("[trial]\nrate = 5\n", "[experiment] has no name"),
        ('[experiment]\nname = "My Sweep"\n', "small letters, digits"),
        (HEADER + "repeats = 0\n", "repeats = 0 must be a number from 1 to 1,000"),
        (HEADER + 'repeats = "3"\n', "repeats = '3' must be a number"),
        (HEADER + "repeat = 3\n", "[experiment] key 'repeat' is unknown (did you mean repeats?)"),
        (HEADER + "[trials]\nrate = 5\n", "table 'trials' is unknown (did you mean trial?)"),
        (HEADER + "trial = 5\n", "[experiment] key 'trial' is unknown"),
        ("trial = 5\n" + HEADER, "trial is not a table; write [trial]"),
        (HEADER + "[case]\nrate = 5\n", "write [[case]] with two brackets"),
        (HEADER + "[trial]\nseed = 4\n", "it belongs in [experiment]"),
        (
            HEADER + '[trial]\nprotocl = "epaxos"\n',
            "[trial] key 'protocl' is unknown (did you mean protocol?); there are protocol, topo",
        ),
        (HEADER + '[trial]\nrate = "fast"\n', "[trial] rate = 'fast' is not a number; write a"),
        (HEADER + "[trial]\nrate = [5, true]\n", "[trial] rate = True is not a number"),
        (HEADER + "[trial]\nrate = []\n", "[trial] rate = [] sweeps over nothing"),
        (HEADER + "[trial]\nrate = [5, 5.0]\n", "[trial] rate names 5.0 twice"),
        (HEADER + "[trial]\nreplicas = 3.5\n", "[trial] replicas = 3.5 is not a whole number"),
        (HEADER + "[trial]\ngate = 1\n", "[trial] gate = 1 is not true or false"),
        (HEADER + '[trial]\nfaults = "crash:CA@3"\n', "is not a list of texts; write a list like"),
        (HEADER + '[trial]\nfaults = ["crush:CA@3"]\n', "kind 'crush' is unknown; one of crash"),
        (HEADER + '[trial]\nprotocol = "paxos"\n', "unknown protocol 'paxos'; choose one of epax"),
        (HEADER + '[trial]\ntopology = "mars"\n', "there is no topology 'mars'"),
        (HEADER + '[trial]\ndurability = "tape"\n', "durability = 'tape': write fsync or memory"),
        (HEADER + "[[case]]\n[[case]]\nleader = 5\n", "[[case]] 2 leader = 5 is not a text"),
        (HEADER + "[trial]\nrate = [0, 5]\n", "rate = 0 is a closed loop"),
    ],
)
def test_a_malformed_file_is_told_with_file_key_and_what_may_stand_there(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        Experiment.load(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_a_name_that_is_not_built_in_lists_those_that_are():
    with pytest.raises(
        ConfigError, match=r"'quik' \(did you mean quick\?\); choose one of .*quick"
    ):
        Experiment.load("quik")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file"):
        Experiment.load(tmp_path / "nowhere.toml")


def test_too_many_trials_are_refused_before_anything_runs():
    with pytest.raises(ConfigError, match="are more than 100,000 trials; sweep less"):
        Experiment("mine", repeats=1000, rate=list(range(1, 102)), simulated=True)


# What the documents say --------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")


def test_the_example_in_the_documents_is_what_they_say(tmp_path):
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    experiment = Experiment.load(write(tmp_path, example))
    assert len(experiment.configurations) == 3 * 2 * (2 + 2)
    assert len(experiment.trials()) == 5 * len(experiment.configurations)


def test_every_key_of_a_trial_is_documented():
    rows = re.findall(r"^\| (`[^|]+`) \|", PAGE, re.MULTILINE)
    documented = [key for row in rows for key in re.findall(r"`(\w+)`", row)]
    assert documented == [field.name for field in fields(Trial) if field.name != "seed"]


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    path = write(tmp_path, '\ufeff[experiment]\nname = "mine"\n')
    assert Experiment.load(path).name == "mine"


def test_a_number_over_every_float_is_refused(tmp_path):
    path = tmp_path / "huge.toml"
    path.write_text('[experiment]\nname = "x"\n[trial]\nrate = ' + "9" * 400)
    with pytest.raises(ConfigError, match="too large"):
        Experiment.load(path)
