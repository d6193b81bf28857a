"""The comparison in virtual time agrees with the closed form, and says what it is."""

import json
import sys
from html import unescape
from pathlib import Path

import pytest

from bench.clusters import virtual
from bench.compare import simulated
from bench.compare.compare import ComparisonOptions
from bench.compare.save import write_samples
from bench.compare.summary import summarize, title
from bench.compare.verdict import judge
from bench.reports.comparison import render
from bench.trials.trial import Trial
from epaxos.core.errors import ConfigError, EpaxosError
from epaxos.percentile import median
from topology import TopologyError, find, find_homes, predict_epaxos, predict_leader

AWS = "aws:us-east-1,eu-west-1,ap-northeast-1,us-west-2,sa-east-1,ap-south-1,eu-north-1,"
AWS += "ap-southeast-2,ca-central-1"
GCP = "gcp:us-east1,europe-west1,asia-northeast1,us-west1,southamerica-east1,asia-south1,"
GCP += "australia-southeast1,europe-north1,us-central1"
AZURE = "azure:eastus,westeurope,westus,northeurope,brazilsouth,westindia,australiacentral,"
AZURE += "uaenorth,centralus"
IBM = "ibm:Dallas,Frankfurt,Tokyo,London,Sydney,Sao Paulo,Mumbai,Toronto,Madrid"
SYNCS_MS = 3 * 0.2
CLOSE_MS = 1.0


def quiet(topology, replicas=None, **more):
    """Few commands that never meet: what differs from the closed form is the simulator's."""
    settings = {"rate": 8.0, "duration_s": 1.0, "warmup_s": 0.1, **more}
    swept = {key: settings.pop(key) for key in ("protocols",) if key in settings}
    conflicts = settings.pop("conflicts", (0.0,))
    trial = Trial(topology=topology, replicas=replicas, simulated=True, **settings)
    return ComparisonOptions(trial, conflicts=conflicts, **swept)


def run(options, workers=1):
    phases = simulated.compare(options, workers=workers)
    document = summarize(options, phases)
    document["verdict"] = judge(document)
    return phases, document


def medians_ms(options, phase):
    """Median commit latency of every region."""
    return [
        median(s.commit_us for s in phase.measured.load.samples if s.region == i) / 1000
        for i in range(len(options.trial.homes))
    ]


@pytest.mark.parametrize("replicas", range(1, 10))
@pytest.mark.parametrize(
    "name", [AWS, GCP, AZURE, IBM, "equidistant:9,100", "one-far:9,20,200"], ids=lambda n: n[:5]
)
def test_quiet_runs_agree_with_the_closed_form_to_the_millisecond(name, replicas):
    topology = find(name, replicas)
    options = quiet(name, replicas, rate=4.0, duration_s=1.2, seed=3)
    for phase in simulated.compare(options):
        leader = phase.cluster.leader
        expected = predict_epaxos(topology) if leader is None else predict_leader(topology, leader)
        syncs_ms = SYNCS_MS if replicas > 1 else SYNCS_MS / 3
        for found, each in zip(medians_ms(options, phase), expected, strict=True):
            assert found == pytest.approx(each.fast_ms + syncs_ms, abs=CLOSE_MS)
        assert all(each.answered == each.sent > 0 for each in phase.measured.load.fates)


@pytest.mark.parametrize(
    "name", ["aws-5-2020", "sosp13-figure4", "epaxos-revisited", "gryff-nsdi20", "lan:5"]
)
def test_the_papers_sites_agree_with_the_closed_form(name):
    _, document = run(quiet(name))
    for cell in document["phases"][0]["cells"]:
        assert cell["commit"]["p50"] == pytest.approx(cell["optimum"]["fast_ms"], abs=CLOSE_MS)


@pytest.mark.parametrize("replicas", [1, 3, 5])
def test_the_syncs_on_the_way_are_those_of_the_optimum(replicas):
    settings = {"conflicts": (0.0, 100.0), "rate": 1.0, "sync_ms": 5.0, "duration_s": 20.0}
    options = quiet(f"equidistant:{replicas},100", **settings)
    phases, document = run(options)
    for phase in phases:
        samples = phase.measured.load.samples
        rows = next(
            p["cells"]
            for p in document["phases"]
            if p["conflict"] == phase.trial.drawn.conflict_rate
        )
        optima = [cell["optimum"] for cell in rows if cell["run"] == phase.cluster.name]
        for region, optimum in enumerate(optima):
            quick = [s.commit_us / 1000 for s in samples if s.region == region and s.path != 1]
            assert median(quick) == optimum["fast_ms"]
        if replicas > 1 and phase.cluster.leader is None and phase.trial.drawn.conflict_rate:
            slow = [s.commit_us / 1000 for s in samples if s.path == 1]
            assert median(slow) == optima[0]["slow_ms"] == 220
    assert all(row["unexplained"] in (0, None) for row in document["phases"][1]["conflicts"])


def test_the_same_options_give_the_same_samples_in_any_number_of_processes():
    options = quiet("aws-5-2020", 3, conflicts=(0.0, 30.0), jitter=True)
    first, second = run(options)[0], run(options, workers=2)[0]
    assert [p.measured.load.samples for p in first] == [p.measured.load.samples for p in second]
    assert [p.measured.costs for p in first] == [p.measured.costs for p in second]
    other = run(quiet("aws-5-2020", 3, conflicts=(0.0, 30.0), jitter=True, seed=2))[0]
    assert [p.measured.load.samples for p in first] != [p.measured.load.samples for p in other]


def test_commands_start_when_those_of_the_real_run_do():
    options = quiet("aws-5-2020", 3, conflicts=(20.0,))
    phases, _ = run(options)
    trial = options.trial
    length_s = trial.warmup_s + trial.duration_s + 0.3
    for phase in phases:
        for i, region in enumerate(trial.sites.regions):
            starts = phase.trial.drawn.arrivals(region.name, trial.rate, length_s)
            found = sorted(s.start_us for s in phase.measured.load.samples if s.region == i)
            assert found == starts.tolist()


def test_a_real_run_on_a_quiet_machine_differs_by_its_own_lag():
    path = Path(__file__).parent.parent / "data" / "summary.json"
    real = json.loads(path.read_text(encoding="utf-8"))
    setup = real["setup"]
    trial = Trial(
        topology=setup["topology"]["name"],
        **{key: setup[key] for key in ("rate", "duration_s", "warmup_s", "seed")},
        simulated=True,
        jitter=True,
    )
    options = ComparisonOptions(
        trial, protocols=("epaxos",), conflicts=(2.0,), value_size=setup["value_size"]
    )
    [ours] = run(options)[1]["phases"]
    [theirs] = [phase for phase in real["phases"] if phase["conflict"] == 2.0]
    [health] = [row for row in theirs["health"] if row["run"] == "epaxos"]
    cells = [cell for cell in theirs["cells"] if cell["run"] == "epaxos"]
    for a, b in zip(ours["cells"], cells, strict=True):
        assert (a["region"], a["samples"]) == (b["region"], b["samples"])
        # What the machine adds to a median is less than the p99 of the lag it shows.
        late_ms = b["commit"]["p50"] - a["commit"]["p50"]
        assert 0 < late_ms < health["loop_lag_p99_ms"]
        assert a["fast_share"] == pytest.approx(b["fast_share"], abs=0.01)
    met, theirs_met = (p["conflicts"][0]["realised_share"] for p in (ours, theirs))
    assert met == pytest.approx(theirs_met, abs=0.002)


def test_jitter_is_that_of_the_topology():
    topology = "aws-5-2020"
    steady = run(quiet(topology, protocols=("epaxos",), rate=30))[1]
    varying = run(quiet(topology, protocols=("epaxos",), rate=30, jitter=True))[1]
    for a, b in zip(steady["phases"][0]["cells"], varying["phases"][0]["cells"], strict=True):
        assert a["answer"]["p95"] - a["answer"]["p50"] < 0.4
        assert b["answer"]["p50"] == pytest.approx(a["answer"]["p50"], abs=2.0)
    oregon = [c for c in varying["phases"][0]["cells"] if c["region"] == "OR"]
    assert oregon[0]["answer"]["p95"] - oregon[0]["answer"]["p50"] > 1.0


def test_in_memory_no_sync_takes_time():
    options = quiet("equidistant:3,50", durability="memory", protocols=("epaxos",))
    _, document = run(options)
    for cell in document["phases"][0]["cells"]:
        assert cell["commit"]["p50"] == pytest.approx(50.0, abs=0.1)
        assert cell["optimum"]["sync_ms"] == 0
    assert document["phases"][0]["costs"][0]["syncs"] == 0


def test_syncs_take_as_long_as_was_said():
    options = quiet("equidistant:3,50", sync_ms=5.0, protocols=("epaxos",))
    for cell in run(options)[1]["phases"][0]["cells"]:
        assert cell["optimum"]["fast_ms"] == 65.0
        assert cell["commit"]["p50"] == pytest.approx(65.0, abs=CLOSE_MS)


def test_without_the_gate_contended_keys_are_not_held_back():
    settings = {"conflicts": (100.0,), "protocols": ("epaxos",), "rate": 20.0}
    topology = "equidistant:3,100"
    held = run(quiet(topology, **settings))[1]["phases"][0]["cells"]
    free = run(quiet(topology, **settings, gate=False))[1]["phases"][0]["cells"]
    assert min(c["answer"]["max"] for c in free) > max(c["answer"]["max"] for c in held)


def test_who_is_not_answered_in_time_has_an_unknown_fate():
    options = quiet("equidistant:3,300", patience_s=0.1, protocols=("epaxos",))
    _, document = run(options)
    for cell in document["phases"][0]["cells"]:
        assert cell["samples"] == 0
        assert cell["fates"]["ambiguous"] == cell["fates"]["sent"] > 0
        assert cell["fates"]["codes"] == {"outcome-unknown": cell["fates"]["sent"]}
    assert document["verdict"]["validity"] == "INVALID"


def test_late_answers_are_not_taken_for_those_of_the_next_phase():
    settings = {"patience_s": 0.2, "gate": False, "protocols": ("epaxos",), "rate": 20.0}
    options = quiet("equidistant:3,100", conflicts=(100.0, 0.0), **settings)
    for phase in run(options)[0]:
        assert all(
            each.answered + each.ambiguous == each.sent for each in phase.measured.load.fates
        )
        assert all(sample.answer_us <= 300_000 for sample in phase.measured.load.samples)


def test_lost_messages_are_sent_again(tmp_path):
    path = tmp_path / "lossy.toml"
    links = "\n".join(
        f"[links.{pair}]\nrtt_ms = 50\nloss = 0.2\n" for pair in ("a-b", "a-c", "b-c")
    )
    path.write_text(f"[regions.a]\n[regions.b]\n[regions.c]\n{links}")
    phases, document = run(quiet(str(path), protocols=("epaxos",)))
    assert all(c["fates"]["lost"] == 0 for c in document["phases"][0]["cells"])
    latest = max(s.answer_us for s in phases[0].measured.load.samples)
    assert latest > 2 * 50_000


# Clients elsewhere -----------------------------------------------------------------------------


def test_clients_in_thirteen_regions_ask_the_nearest_of_five_replicas():
    spec = "ibm:Dallas,Frankfurt,Tokyo,Sydney,Sao Paulo"
    topology = find(spec)
    everywhere = find(spec.partition(":")[0] + ":" + ",".join(IBM_ALL))
    options = quiet(spec, client_regions=IBM_ALL)
    phases, document = run(options)
    assert title(options).endswith("clients in 13 regions")
    cells = document["phases"][0]["cells"]
    assert len(cells) == 13 * len(phases)
    assert [c["region"] for c in cells[:: len(phases)]] == IBM_ALL
    for cell in cells:
        region, replica = everywhere.index(cell["region"]), everywhere.index(cell["replica"])
        hops = [everywhere.rtt_ms(region, everywhere.index(r.name)) for r in topology.regions]
        if cell["region"] in [r.name for r in topology.regions]:
            assert cell["replica"] == cell["region"]
            assert cell["optimum"]["hop_ms"] == 0
        else:
            assert everywhere.rtt_ms(region, replica) == min(hops)
            assert cell["optimum"]["hop_ms"] == pytest.approx(min(hops), abs=0.002)
        assert cell["commit"]["p50"] == pytest.approx(cell["optimum"]["fast_ms"], abs=CLOSE_MS)
        assert cell["answer"]["p50"] >= cell["optimum"]["hop_ms"]


IBM_ALL = [
    *("Dallas", "Toronto", "Washington DC", "Frankfurt", "London", "Madrid", "Montreal"),
    *("Chennai", "Mumbai", "Osaka", "Sydney", "Tokyo", "Sao Paulo"),
]


def test_the_best_leader_is_that_of_the_regions_with_clients():
    spec = "one-far:4,20,300"
    far = quiet(spec, client_regions=["R4"])
    assert [cluster.leader for cluster in far.clusters] == [None, 3, 0]
    assert [cluster.leader for cluster in quiet(spec).clusters] == [None, 0, 3]


def test_clients_by_title_in_named_topologies_and_files(tmp_path):
    topology = find("aws-5-2020", 3)
    [home] = find_homes("aws-5-2020", topology, ["tokyo"])
    assert (home.region.name, topology.regions[home.replica].name) == ("JP", "CA")
    path = tmp_path / "offices.toml"
    path.write_text(
        "[regions.a]\n[regions.b]\n[regions.c]\n[links.a-b]\nrtt_ms = 50\n"
        "[links.a-c]\nrtt_ms = 30\nasymmetry_ms = 5\n[links.b-c]\nrtt_ms = 40\n"
    )
    [home] = find_homes(str(path), find(str(path), 2), ["c"])
    assert (home.replica, home.there_us, home.back_us) == (0, 10_000, 20_000)
    assert home.hop_ms == 30


def test_what_is_guessed_is_said_of_clients_too():
    topology = find("sosp13-figure4", 1)
    assert topology.regions[0].name == "VA"
    homes = find_homes("sosp13-figure4", topology, ["JP", "CA"])
    [note] = homes[0].notes
    assert note == "VA-JP is guessed, not measured"
    assert homes[1].notes == ()
    options = quiet("sosp13-figure4", 1, client_regions=["JP", "CA"])
    notes = summarize(options, [])["setup"]["topology"]["notes"]
    assert notes == [*topology.notes, note]


@pytest.mark.parametrize(
    ("names", "word"),
    [(["Mars"], "has no region 'Mars'"), (["Tokyo", "JP"], "clients in JP are named twice")],
)
def test_clients_must_be_in_regions_of_the_source(names, word):
    with pytest.raises(TopologyError, match=word):
        find_homes("aws-5-2020", find("aws-5-2020", 3), names)


def test_more_replicas_than_regions_are_refused_with_what_to_name():
    with pytest.raises(TopologyError, match="has 5 regions, not 7; name one with more"):
        find("aws-5-2020", 7)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"jitter": True, "simulated": False}, "write simulated = true"),
        ({"sync_ms": -1.0}, "sync_ms"),
        ({"sync_ms": 2000.0}, "sync_ms"),
    ],
)
def test_what_virtual_time_cannot_do_is_refused(wrong, word):
    with pytest.raises(ConfigError, match=word):
        ComparisonOptions(Trial(topology="aws-5-2020", **{"simulated": True, **wrong}))


# The document ----------------------------------------------------------------------------------


def test_the_document_says_that_it_is_virtual_time(tmp_path):
    names = [*(region.name for region in find("aws-5-2020", 3).regions), "JP"]
    options = quiet("aws-5-2020", 3, conflicts=(0.0, 50.0), rate=50.0, client_regions=names)
    phases, document = run(options)
    assert document["simulated"] is True
    assert document["setup"]["simulated"] is True
    assert document["setup"]["sync_ms"] == 0.2
    assert document["setup"]["replicas"] == 3
    assert document["setup"]["clients"][3]["replica"] != "JP"
    assert "virtual time · syncs of 0.2 ms · no jitter" in document["title"]
    verdict = document["verdict"]
    assert verdict["validity"] == "SUSPECT"
    assert all("samples" in reason for reason in verdict["reasons"])
    sent = sum(c["fates"]["sent"] for p in document["phases"] for c in p["cells"])
    assert verdict["evidence"].startswith("virtual time: no lag, no CPU and no other program")
    assert verdict["evidence"].endswith(f"0 of {sent:,} lost")
    for phase in document["phases"]:
        assert phase["health"] == []
        assert all(cost["cpu_ms"] is None for cost in phase["costs"])
        assert all(cost["messages"] > 1 and cost["bytes"] > 10 for cost in phase["costs"])
        assert len(phase["comparisons"]) == 4 * (len(phases) // 2 - 1)
    document["manifest"] = {"command_line": "epaxos compare --simulated"}
    page = unescape(render(document))
    assert "In virtual time: the replicas' own code" in page
    assert "Tokyo → " in page
    assert "Real replica processes" not in page
    write_samples(tmp_path / "samples.jsonl", phases, names)
    assert '"region":"JP"' in (tmp_path / "samples.jsonl").read_text()


def test_where_it_stands_is_told():
    options = quiet("equidistant:3,20", conflicts=(0.0, 2.0))
    for workers in (1, 2):
        told = []
        simulated.compare(options, told.append, workers)
        totals = [progress.total for progress in told]
        assert totals == sorted(totals)
        assert totals[0] == 0
        assert totals[-1] == pytest.approx(1)
        assert {progress.activity for progress in told} == {"0 % conflicts", "2 % conflicts"}
        assert {progress.what for progress in told} == {"EPaxos", "MP @R1"}


def test_replicas_that_do_not_get_ready_are_an_error(monkeypatch):
    monkeypatch.setattr(virtual, "_READY_WITHIN_US", 0)
    with pytest.raises(EpaxosError, match="not ready"):
        simulated.compare(quiet("equidistant:3,20"))


def test_a_process_that_ends_early_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(EpaxosError, match="ended before its answer"):
        simulated.compare(quiet("equidistant:3,20"), workers=2)
