"""The papers' figures: what they need, what they say of themselves, and how near they come."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bench.analysis.conflicts import OWN_KEY
from bench.analysis.statistics import stated_percentile
from bench.clusters.counters import Costs
from bench.drawing import style
from bench.figures import catalogue, evaluate
from bench.figures.over_time import answers_per_s, medians
from bench.figures.plan import (
    Picture,
    PooledTrials,
    Scale,
    Study,
    StudyResults,
    conditions,
    validity,
)
from bench.figures.published import MEDIAN_READ_MS, figure_4
from bench.figures.studies import what_does_a_site_see as sites
from bench.load.samples import Fates, LoadResult, Sample, Spread
from bench.reports.figures import write_page
from bench.trials.trial import Outcome, Trial, run_trial
from epaxos.cli.exits import ExitCode
from epaxos.cli.main import run
from epaxos.core.errors import ConfigError
from topology import find, predict_epaxos, predict_leader

NONE = Spread()
SMALL = Scale(repeats=2, real_repeats=2, simulated_s=3.0, real_s=1.0)
WITHIN_MS = 5.0
PAPER_CONTRADICTS_ITSELF = {
    ("epaxos", "CA"),
    ("epaxos", "JP"),
    ("multipaxos", "JP"),
    ("multipaxos", "EU"),
}
"""Where the paper's own round trips, in closed form, are farther from its medians than that."""


def outcome(trial, validity="VALID", reasons=()):
    """An invented one: 30 answers per region, one per 0.1 s, of 100 ms and a little more."""
    regions = [home.region.name for home in trial.homes]
    first = round(trial.warmup_s * 1e6)
    samples = [
        Sample(
            region=region,
            start_us=first + 100_000 * i,
            commit_us=90_000 + 10 * i,
            answer_us=100_000 + 10 * i + region,
            path=i % 2,
            replica=region,
            slot=i + 1,
            shared=OWN_KEY,
            measured=True,
        )
        for region in range(len(regions))
        for i in range(30)
    ]
    load = LoadResult(
        samples=samples,
        fates=[Fates(sent=40, answered=30) for _ in regions],
        hop_us=[0] * len(regions),
        start_error=NONE,
        loop_lag=NONE,
        cpu_share=0.0,
        wall_s=3.0,
        unreachable=[""] * len(regions),
        disconnects=[0] * len(regions),
    )
    return Outcome(
        load=load,
        regions=regions,
        sync_us=[0] * trial.sites.n,
        costs=Costs(300, 600, 6000, 30, None),
        machine=None,
        events=[],
        validity=validity,
        reasons=list(reasons),
    )


def results(trials, scale=SMALL):
    return StudyResults(
        scale, {each: outcome(each) for trial in trials for each in scale.repeated(trial)}
    )


# How near to the paper -----------------------------------------------------------------------


def five_sites(protocol, matrix, directory):
    """Per site: our median, the closed form and the paper's median, in ms."""
    scale, topology = Scale(repeats=1, simulated_s=3.0), find(matrix)
    if protocol == "epaxos":
        trial = sites.epaxos(scale, 5, 0, gate=False)
        published = figure_4()["five_sites"]["epaxos_0"]
        predicted = predict_epaxos(topology)
    else:
        trial = sites.multipaxos(scale, 5, sites.PAPERS_LEADER)
        published = figure_4()["five_sites"]["multipaxos_leader_CA"]
        predicted = predict_leader(topology, topology.index(sites.PAPERS_LEADER))
    trial = replace(trial, topology=matrix)
    pool = PooledTrials(trial, [run_trial(trial, directory)])
    for region, prediction in zip(topology.regions, predicted):
        ours = stated_percentile(pool.commit_ms(region.name), 50)
        yield region.name, ours, prediction.fast_ms, published[region.name][0]


@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos"])
def test_medians_are_the_papers_where_the_papers_round_trips_allow_it(protocol, tmp_path):
    for site, ours, closed_form, paper in five_sites(protocol, sites.MATRIX, tmp_path):
        assert ours == pytest.approx(closed_form, abs=1.0)
        agrees = abs(ours - paper) <= WITHIN_MS
        assert agrees is ((protocol, site) not in PAPER_CONTRADICTS_ITSELF)
        assert abs(ours - paper) <= 3 * MEDIAN_READ_MS


@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos"])
def test_medians_are_the_papers_under_the_round_trips_that_they_imply(protocol, tmp_path):
    for site, ours, closed_form, paper in five_sites(protocol, sites.IMPLIED, tmp_path):
        assert ours == pytest.approx(closed_form, abs=1.0)
        assert abs(ours - paper) <= WITHIN_MS, site


# What a figure says --------------------------------------------------------------------------


@pytest.mark.parametrize("study", catalogue.STUDIES, ids=lambda study: study.name)
def test_every_study_is_drawn_and_says_what_it_was_measured_under(study, tmp_path):
    trials = study.trials(SMALL)
    with style.styled():
        pictures = study.draw(results(trials))
        assert pictures
        for picture in pictures:
            assert len(picture.caption) > 200
            for word in ("matrix", "n = ", "loop", "repeats of", "seeds 1 to 2"):
                assert word in picture.conditions
            assert any(word in picture.conditions for word in ("memory", "fsync"))
            assert any(word in picture.conditions for word in ("simulated", "real processes"))
            assert "latency" in picture.conditions
            assert picture.rows
            json.dumps(picture.rows)
            saved = style.save(picture.figure, tmp_path / picture.name, ("svg",))
            assert saved[0].read_text().startswith("<?xml")


def test_the_names_of_studies_are_those_of_their_modules():
    for study in catalogue.STUDIES:
        module = study.trials.__module__.rpartition(".")[2]
        assert module.replace("_", "-") == study.name


def test_studies_that_the_rule_changes_run_with_it_and_without():
    for name in (
        "what-does-a-site-see",
        "what-do-conflicts-cost-in-throughput",
        "what-does-a-slow-replica-cost",
        "how-long-is-the-tail",
        "what-does-load-do-to-a-hot-key",
        "how-often-do-commands-conflict",
        "what-does-locality-buy",
    ):
        (study,) = catalogue.find_studies([name])
        gates = {trial.gate for trial in study.trials(SMALL) if trial.protocol == "epaxos"}
        assert gates == {True, False}


def test_an_unknown_figure_is_named_with_what_there_is():
    with pytest.raises(ConfigError, match=r"no figure 'what-does-a-site-sea' \(did you mean"):
        catalogue.find_studies(["what-does-a-site-sea"])


def test_conditions_of_mixed_trials_name_both_ends():
    trials = [
        Trial(workload="conflict:0", simulated=True),
        Trial(topology="lan:3", rate=0.0, clients=1, durability="memory"),
    ]
    said = conditions(trials, Scale(repeats=1, seed=7), "commit latency")
    assert said.startswith("matrix aws-5-2020 and lan")
    assert "n = 5 (fast quorum 3, slow 3) and n = 3 (fast quorum 2, slow 2)" in said
    assert "closed loop, 1 client per region" in said
    assert "one repeat" in said
    assert "seed 7" in said


def test_validity_is_that_of_the_worst_trial():
    good, bad = Trial(simulated=True), Trial(simulated=True, rate=10.0)
    scale = Scale(repeats=1)
    found = StudyResults(scale, {good: outcome(good), bad: outcome(bad, "SUSPECT", ["slow disk"])})
    assert validity([good], found) == ("VALID", [])
    assert validity([good, bad], found) == ("SUSPECT", ["slow disk"])


# Figures behind it ---------------------------------------------------------------------------


def test_a_pool_holds_all_repeats():
    trial = Trial(simulated=True, duration_s=3.0)
    pool = results([trial])[trial]
    assert len(pool.samples) == 2 * 5 * 30
    assert len(pool.answer_ms(pool.regions[0])) == 60
    assert pool.commit_ms().min() == 90.0
    assert pool.throughput == pytest.approx(5 * 30 / 3.0)
    assert pool.answered_share == pytest.approx(0.75)
    assert pool.fast_share == pytest.approx(0.5)


def test_percentiles_of_too_few_are_not_stated():
    values = np.linspace(1, 100, 999)
    assert stated_percentile(values, 99) is None
    assert stated_percentile(values, 95) == values[949]
    assert stated_percentile(np.array([]), 50) is None
    assert stated_percentile(np.linspace(1, 100, 1000), 99) is not None


def test_a_timeline_counts_from_what_is_measured():
    trial = Trial(simulated=True, duration_s=3.0)
    pool = PooledTrials(trial, [outcome(trial)])
    region = pool.regions[0]
    curve = answers_per_s(pool, region, 1.0)
    assert curve.at_s == [0.5, 1.5, 2.5]
    assert sum(curve.values) == 29  # the last was asked at 2.9 s and answered after the end
    assert medians(pool, region, 1.0).values == pytest.approx([100, 100, 100], abs=1)
    assert sum(answers_per_s(pool, None, 1.0).values) == 5 * 29


# The verb ------------------------------------------------------------------------------------


def tiny(name="how-many"):
    def trials(scale):
        return [
            Trial(
                topology="lan:3",
                duration_s=1.0,
                warmup_s=0.2,
                rate=200.0,
                workload=work,
                simulated=True,
            )
            for work in ("conflict:0", "conflict:100")
        ]

    def draw(found):
        figure = style.make(style.COLUMN_IN, 2.0)
        axes = figure.add_subplot()
        pools = [found[trial] for trial in trials(found.scale)]
        axes.bar((0, 1), [len(pool.samples) for pool in pools])
        rows = [{"commands": len(pool.samples), "rule": True, "none": None} for pool in pools]
        said = conditions(trials(found.scale), found.scale, "no latency")
        return [Picture("bars", "How <many>", figure, "So many.", said, rows)]

    return Study(name, "How many?", "nobody's paper", trials, draw)


@pytest.fixture
def one_study(monkeypatch):
    monkeypatch.setattr(catalogue, "STUDIES", (tiny(),))


def test_figures_are_written_once_more_and_not_run_again(one_study, tmp_path, capsys):
    line = ["figures", "--out", str(tmp_path), "--repeats", "1", "--jobs", "1"]
    assert run([*line, "--json"]) == ExitCode.OK
    first = json.loads(capsys.readouterr().out)
    assert first["reused"] == 0
    assert first["trials"] == 2
    assert run(line) == ExitCode.OK
    said = capsys.readouterr()
    assert "VALID" in said.out
    assert "report" in said.out
    places = sorted(tmp_path.glob("*-figures*"))
    assert len(places) == 2
    second = json.loads((places[1] / "figures.json").read_text())
    assert second["reused"] == 2
    assert second["figures"][0]["pictures"] == first["figures"][0]["pictures"]
    for form in style.FORMATS:
        assert (places[1] / form / f"how-many-bars.{form}").stat().st_size > 1000


def test_the_page_shows_all_and_needs_no_network(one_study, tmp_path):
    (study,) = catalogue.find_studies([])
    scale = Scale(repeats=1)
    trials = evaluate.needed([study], scale)
    drawn = evaluate.draw([study], scale, {trial: outcome(trial) for trial in trials})
    with style.styled():
        (tmp_path / "svg").mkdir()
        style.save(drawn[0].pictures[0].figure, tmp_path / "svg" / "how-many-bars", ("svg",))
    document = {
        "scale": {"repeats": 1, "real_repeats": 1, "simulated_s": 1.0, "real_s": 1.0, "seed": 1},
        "figures": [
            {
                "name": study.name,
                "question": study.question,
                "source": study.source,
                "validity": "SUSPECT",
                "reasons": ["the machine was <busy>"],
                "pictures": [
                    {
                        "name": "bars",
                        "title": "How <many>",
                        "file": "how-many-bars",
                        "caption": "So many.",
                        "conditions": "matrix lan",
                        "rows": drawn[0].pictures[0].rows,
                    }
                ],
            }
        ],
        "trials": 2,
        "reused": 0,
        "notes": [],
        "manifest": {
            "version": "0",
            "command_line": "epaxos figures",
            "begun": "a",
            "ended": "b",
            "code": "c",
            "python": "d",
            "machine": {"system": "e", "cpus": 2, "cpu": "f"},
        },
    }
    text = write_page(tmp_path, document).read_text()
    assert "How &lt;many&gt;" in text
    assert "the machine was &lt;busy&gt;" in text
    assert "SUSPECT" in text
    assert 'src="data:image/svg+xml;base64,' in text
    assert "http" not in text.replace("http-equiv", "")


def test_repeats_are_the_outer_loop_and_shared_trials_run_once():
    trials = evaluate.needed([tiny(), tiny("again")], Scale(repeats=2))
    assert [(trial.workload, trial.seed) for trial in trials] == [
        ("conflict:0", 1),
        ("conflict:100", 1),
        ("conflict:0", 2),
        ("conflict:100", 2),
    ]


def test_real_trials_have_repeats_of_their_own():
    scale = Scale(repeats=3, real_repeats=1)
    assert len(scale.repeated(Trial(simulated=True))) == 3
    assert [each.seed for each in scale.repeated(Trial())] == [1]
    assert "one repeat of 7 s, seed 1" in conditions([Trial()], scale)
    assert "3 repeats of 7 s, seeds 1 to 3" in conditions([Trial(simulated=True)], scale)


def test_list_names_every_figure_with_its_question(capsys):
    assert run(["figures", "--list", "--json"]) == ExitCode.OK
    listed = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in listed] == [study.name for study in catalogue.STUDIES]
    assert run(["figures", "--list", "what-does-batching-buy"]) == ExitCode.OK
    assert "What do batches buy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing-such"], "there is no figure 'nothing-such'"),
        (["--repeats", "0"], "repeats = 0 must be between 1 and 100"),
        (["--seconds", "0.1"], "'--seconds': Input should be greater than or equal to 0.5"),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, tmp_path, capsys):
    assert run(["figures", *arguments, "--out", str(tmp_path)]) == ExitCode.CONFIG
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_failed_trial_leaves_no_directory(monkeypatch, tmp_path, capsys):
    study = tiny()
    broken = replace(
        study, trials=lambda scale: [replace(study.trials(scale)[0], topology="nowhere:3")]
    )
    monkeypatch.setattr(catalogue, "STUDIES", (broken,))
    assert run(["figures", "--out", str(tmp_path)]) != ExitCode.OK
    assert "nowhere" in capsys.readouterr().err
    assert not list(tmp_path.glob("*-figures*"))
