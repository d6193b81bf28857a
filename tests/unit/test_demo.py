"""The demonstrations: what they run, what they say was seen."""

import json

import pytest

from bench import demo as demos
from bench.demo import EPAXOS, MULTIPAXOS
from bench.trials.trial import run_trial
from epaxos.cli.demo import spark
from epaxos.cli.exits import ExitCode
from epaxos.cli.main import run
from epaxos.core.errors import ConfigError

SHORT = 8.0


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    demo = demos.far_leader(replicas=3, seconds=SHORT, simulated=True)
    place = tmp_path_factory.mktemp("far")
    outcomes = {title: run_trial(trial, place) for title, trial in demo.trials.items()}
    return demo, demos.pools(demo, outcomes)


@pytest.fixture(scope="module")
def died(tmp_path_factory):
    demo = demos.region_down(replicas=3, seconds=12.0, simulated=True)
    place = tmp_path_factory.mktemp("down")
    outcomes = {title: run_trial(trial, place) for title, trial in demo.trials.items()}
    return demo, demos.pools(demo, outcomes)


def test_only_multipaxos_has_a_leader_to_move(moved):
    demo, found = moved
    assert [event.kind for event in found[MULTIPAXOS].outcomes[0].events] == ["leader"]
    assert found[EPAXOS].outcomes[0].events == []
    near, far = demo.leaders
    assert near != far


def test_the_leader_moves_and_only_multipaxos_changes(moved):
    demo, found = moved
    curves = demos.curves(demo, found)
    near, far = demo.leaders

    def change(title, region):
        values = [value for value in curves[title][region] if value is not None]
        return values[-1] - values[0]

    assert change(MULTIPAXOS, near) > 50
    assert change(MULTIPAXOS, far) < -50
    assert all(abs(change(EPAXOS, region)) < 5 for region in range(3))


def test_sentences_name_regions_and_figures(moved):
    demo, found = moved
    said = demos.sentences(demo, found)
    near, far = (demo.sites.regions[index].title for index in demo.leaders)
    assert f"moved from {near} to {far}" in said[0]
    assert " ms." in said[0]
    assert said[1].startswith("EPaxos has no leader to move")
    assert "of 3 regions" in said[2]


def test_a_death_silences_the_leader_protocol_everywhere(died):
    demo, found = died
    said = demos.sentences(demo, found)
    dead = demo.sites.regions[demo.leaders[0]]
    assert dead.title in said[0]
    silent = {title: demos._silence_s(demo, pool, dead.name)[1] for title, pool in found.items()}
    assert silent[MULTIPAXOS] > 1.0 > silent[EPAXOS]
    for pool in found.values():
        (event,) = pool.outcomes[0].events
        assert (event.kind, event.at_s, event.until_s) == ("crash", demo.from_s, demo.until_s)


def test_the_figure_has_a_panel_per_protocol_and_its_conditions(moved):
    demo, found = moved
    figure = demos.draw(demo, found)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [MULTIPAXOS, EPAXOS]
    for axes in figure.axes:
        assert len([line for line in axes.lines if line.get_label() in titles(demo)]) == 3
    for word in ("aws-5-2020", "n = 3", "fsync", "open loop", "seed 1", "virtual time"):
        assert word in demos.caption(demo)


def titles(demo):
    return {region.title for region in demo.sites.regions}


def test_sparks_share_a_scale_and_show_gaps():
    assert spark([0.0, 50.0, 100.0, None], 100.0) == "▁▅█·"
    assert spark([], 100.0) == ""


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: demos.far_leader(seconds=3), "seconds = 3 must be 8 or more"),
        (lambda: demos.region_down(topology="lan:2"), "a demonstration needs 3 or more"),
    ],
)
def test_bad_input_is_one_sentence(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_the_verb_writes_figure_and_numbers_and_says_where(tmp_path, capsys):
    line = ["demo", "far-leader", "--simulated", "--replicas", "3", "--seconds", "8"]
    assert run([*line, "--out", str(tmp_path)]) == ExitCode.OK
    said = capsys.readouterr()
    assert "EPaxos has no leader to move" in said.out
    (place,) = tmp_path.glob("*-demo-far-leader*")
    assert {path.name for path in place.iterdir()} == {
        "demo.json",
        "far-leader.png",
        "far-leader.svg",
        "far-leader.pdf",
    }
    assert str(place / "far-leader.png") in said.out
    document = json.loads((place / "demo.json").read_text())
    assert document["validity"] == {MULTIPAXOS: "VALID", EPAXOS: "VALID"}
    assert len(document["median_ms"][EPAXOS]) == 3


def test_a_live_step_is_what_came_since_the_last():
    means = demos._Means()
    assert means.step(EPAXOS, 0, (1.0, 10.0)) == pytest.approx(100.0)
    assert means.step(EPAXOS, 0, (1.0, 10.0)) is None
    assert means.step(EPAXOS, 0, None) is None
    assert means.step(EPAXOS, 0, (1.5, 12.0)) == pytest.approx(250.0)
    assert means.step(EPAXOS, 0, (0.2, 1.0)) == pytest.approx(200.0)  # it began anew
