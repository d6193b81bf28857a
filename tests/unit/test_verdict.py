"""Verdicts: what is said follows from the figures, and what cannot be believed is called so."""

import copy
import json
from pathlib import Path

import pytest

from bench.analysis.validity import Findings, validity
from bench.compare.verdict import headline, judge, key_figures

SUMMARY = json.loads(
    (Path(__file__).parent.parent / "data" / "summary.json").read_text(encoding="utf-8")
)


@pytest.fixture
def summary():
    return copy.deepcopy(SUMMARY)


def paragraph(summary, conflict):
    [found] = [s for s in judge(summary)["sentences"] if s.startswith(f"At {conflict} %")]
    return found


def compare(summary, conflict, against, difference):
    """Let all regions differ in the same way."""
    for phase in summary["phases"]:
        for row in phase["comparisons"]:
            if phase["conflict"] == conflict and row["against"] == against:
                row["answer"] = dict(difference)


def test_the_example_is_valid_and_judged_as_it_was(summary):
    assert judge(summary) == SUMMARY["verdict"]
    assert SUMMARY["verdict"]["validity"] == "VALID"


def test_says_where_epaxos_wins_and_where_it_is_level(summary):
    text = paragraph(summary, 2)
    assert "faster in Virginia, Oregon, Ireland and Tokyo" in text
    assert "level in California" in text
    assert "its best leader" in text


def test_says_where_epaxos_loses(summary):
    assert "slower in all 5 regions" in paragraph(summary, 100)


@pytest.mark.parametrize(
    ("median", "significant", "word"),
    [
        (-9.0, True, "faster in all 5 regions (by 9.0 ms)"),
        (9.0, True, "slower in all 5 regions (by 9.0 ms)"),
        (9.0, False, "level in all 5 regions"),
        (0.1, True, "level in all 5 regions"),
    ],
)
def test_only_a_significant_difference_of_some_size_is_one(summary, median, significant, word):
    difference = {"median_ms": median, "low_ms": 0, "high_ms": 0, "significant": significant}
    compare(summary, 0, "multipaxos-CA", difference)
    assert word in paragraph(summary, 0)


def test_a_region_without_answers_is_said(summary):
    compare(summary, 0, "multipaxos-CA", {})
    for row in summary["phases"][0]["comparisons"]:
        row["answer"] = None
    assert "without figures in all 5 regions" in paragraph(summary, 0)


def test_how_far_from_the_optimum(summary):
    for cell in summary["phases"][0]["cells"]:
        cell["ratio"] = 1.0121
    assert "within 2 % of the optimum in all 5 regions" in paragraph(summary, 0)
    [cell] = [
        c for c in summary["phases"][0]["cells"] if (c["run"], c["region"]) == ("epaxos", "JP")
    ]
    cell["ratio"] = 1.5
    assert "up to 50 % above the optimum in Tokyo" in paragraph(summary, 0)
    cell["ratio"] = 2.5
    assert "in up to 2.5 times the one-round-trip optimum in Tokyo" in paragraph(summary, 0)


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (1.0199, "within 2 % of its own optimum everywhere"),
        (1.0601, "up to 7 % above its own optimum"),
        (2.5, "in up to 2.5 times its own optimum"),
    ],
)
def test_how_far_a_leader_protocol_is_from_its_own_optimum(summary, ratio, words):
    for phase in summary["phases"]:
        for cell in phase["cells"]:
            cell["ratio"] = ratio
    assert sum(words in sentence for sentence in judge(summary)["sentences"]) == 2


@pytest.mark.parametrize(
    ("key", "value", "level"),
    [
        ("loop_lag_p99_ms", 6.0, "SUSPECT"),
        ("loop_lag_p99_ms", 60.0, "INVALID"),
        ("link_error_p99_ms", 6.0, "SUSPECT"),
        ("client_lag_p99_ms", 60.0, "INVALID"),
        ("start_error_p99_ms", 6.0, "SUSPECT"),
        ("client_cpu", 0.99, "INVALID"),
        ("machine_cpu", 0.8, "SUSPECT"),
    ],
)
def test_what_disturbs_is_a_reason(summary, key, value, level):
    summary["phases"][1]["health"][2][key] = value
    found, reasons = validity(summary)
    assert found == level
    assert len(reasons) == 1
    assert reasons[0].startswith("MP @EU, 2 %:")


@pytest.mark.parametrize(
    ("key", "value", "level"),
    [
        ("loop_lag_p99_ms", 60.0, "VALID"),
        ("client_lag_p99_ms", 60.0, "VALID"),
        ("link_error_p99_ms", 60.0, "VALID"),
        ("machine_cpu", 0.99, "VALID"),
        ("client_cpu", 0.8, "SUSPECT"),
        ("client_cpu", 0.99, "INVALID"),
        ("others_cpu", 0.15, "VALID"),
        ("others_cpu", 0.25, "SUSPECT"),
    ],
)
def test_where_clients_ask_for_all_only_they_and_others_disturb(summary, key, value, level):
    row = summary["phases"][1]["health"][2]
    row[key] = value
    found = Findings()
    found.look_at_throughput("here: ", row)
    assert found.validity == level
    assert [reason[:6] for reason in found.reasons] == ["here: "] * (level != "VALID")


def test_lost_commands_are_a_reason(summary):
    fates = summary["phases"][0]["cells"][0]["fates"]
    fates["lost"] = 1
    assert validity(summary)[0] == "INVALID"
    fates["sent"] = 10_000
    level, [reason] = validity(summary)
    assert level == "SUSPECT"
    assert "1 commands lost" in reason


def test_other_programs_make_a_run_suspect(summary):
    row = summary["phases"][0]["health"][0]
    row["machine_cpu"], row["others_cpu"] = 0.3, 0.3
    assert validity(summary) == ("VALID", [])
    row["others_cpu"] = 0.65
    level, [reason] = validity(summary)
    assert level == "SUSPECT"
    assert "the machine was busy to 0.95, 0.65 with other programs" in reason
    row["others_cpu"] = None
    assert validity(summary) == ("VALID", [])


def test_commands_without_an_answer_are_said_beside_the_percentiles(summary):
    fates = summary["phases"][2]["cells"][0]["fates"]
    fates["ambiguous"], fates["answered"] = 30, fates["sent"] - 30
    assert "EPaxos did not answer 30 of " in paragraph(summary, 100)


def test_refusals_and_few_samples_are_reasons(summary):
    cell = summary["phases"][0]["cells"][0]
    cell["fates"]["refused"] = 1
    assert validity(summary)[0] == "SUSPECT"
    cell["fates"]["refused"] = 0
    cell["samples"] = 99
    assert validity(summary)[0] == "SUSPECT"
    cell["samples"] = 9
    assert validity(summary)[0] == "INVALID"


def test_a_slow_path_without_a_conflict_is_a_reason(summary):
    row = summary["phases"][1]["conflicts"][0]
    row["unexplained"] = 2
    level, reasons = validity(summary)
    assert level == "SUSPECT"
    assert reasons == ["EPaxos, 2 %: 2 slow paths without a conflict"]
    assert "2 of them not explained by any conflict" in paragraph(summary, 2)


def test_one_protocol_alone_has_a_verdict(summary):
    summary["runs"] = summary["runs"][1:]
    for phase in summary["phases"]:
        for key in ("cells", "costs", "conflicts", "health"):
            phase[key] = [row for row in phase[key] if row["run"] != "epaxos"]
        phase["comparisons"] = []
    sentences = judge(summary)["sentences"]
    assert len(sentences) == 2
    assert all("of its own optimum" in sentence for sentence in sentences)


# The sentence at the top, and the numbers under it ---------------------------------------------


def only(summary, *runs):
    """The same comparison of some of its runs; without the first there is nothing to compare."""
    summary["runs"] = [run for run in summary["runs"] if run["run"] in runs]
    for phase in summary["phases"]:
        for part in ("cells", "costs", "conflicts", "health"):
            phase[part] = [row for row in phase[part] if row["run"] in runs]
        phase["comparisons"] = [
            row for row in phase["comparisons"] if row["run"] in runs and row["against"] in runs
        ]
    return summary


def silence(summary, *runs):
    """Nobody answered in these runs."""
    for phase in summary["phases"]:
        for cell in phase["cells"]:
            if cell["run"] in runs:
                cell["samples"], cell["paths"] = 0, {}
                cell["answer"] = dict.fromkeys(cell["answer"])
        for row in phase["comparisons"]:
            if row["run"] in runs or row["against"] in runs:
                row["answer"] = None


def test_one_sentence_says_who_wins_where_and_by_how_much(summary):
    assert headline(summary) == (
        "At 0 % conflicts EPaxos answers faster than Multi-Paxos led from California, its best "
        "leader, in 4 of 5 regions (by 7.9 to 73.2 ms at the median) and slower in California "
        "(by 0.8 ms); at 100 % conflicts slower in all 5 regions (by 361.3 to 504.7 ms)."
    )


def test_three_numbers_have_their_unit_and_their_condition(summary):
    typical, rival = "median answer, median over the 5 regions", "Multi-Paxos led from California"
    tail = "p95 of the answers in the slowest of the 5 regions"
    assert key_figures(summary) == [
        ("75.3 ms", f"EPaxos at 0 % conflicts: {typical}", f"{rival}: 121.9 ms"),
        ("132.4 ms", f"EPaxos at 0 % conflicts: {tail}", f"{rival}: 205.3 ms"),
        ("554.0 ms", f"EPaxos at 100 % conflicts: {typical}", f"{rival}: 122.0 ms"),
    ]


def test_the_headline_does_not_hide_that_everything_is_slower(summary):
    worse = {"median_ms": 9.0, "low_ms": 8.0, "high_ms": 10.0, "significant": True}
    for conflict in (0, 100):
        compare(summary, conflict, "multipaxos-CA", worse)
    assert headline(summary).startswith("At 0 % conflicts EPaxos answers slower than Multi-Paxos")


def test_a_headline_without_a_difference(summary):
    same = {"median_ms": 0.1, "low_ms": -1.0, "high_ms": 1.0, "significant": False}
    summary["phases"] = summary["phases"][:1]
    compare(summary, 0, "multipaxos-CA", same)
    assert headline(summary) == (
        "At 0 % conflicts EPaxos answers as fast as Multi-Paxos led from California, its best "
        "leader, in all 5 regions."
    )


def test_one_workload_shows_the_share_of_the_fast_path(summary):
    summary["phases"] = summary["phases"][1:2]
    share = key_figures(summary)[2]
    assert share.value == "99.7 %"
    assert "one round trip" in share.what


def test_a_headline_of_one_protocol_names_its_medians(summary):
    assert headline(only(summary, "multipaxos-CA")) == (
        "At 0 % conflicts the median answer takes Multi-Paxos led from California 61.8 ms in "
        "California to 203.3 ms in Ireland; at 100 % conflicts the median answer takes "
        "Multi-Paxos led from California 61.9 ms in California to 203.4 ms in Ireland."
    )
    assert [each.value for each in key_figures(summary)] == ["121.9 ms", "205.3 ms", "122.0 ms"]
    assert not any(each.beside for each in key_figures(summary))


def test_a_headline_of_a_protocol_beside_one_without_a_leader(summary):
    for phase in summary["phases"]:
        for row in phase["comparisons"]:
            row["against"] = row["against"].replace("multipaxos-CA", "unanimous")
        for cell in phase["cells"]:
            cell["run"] = cell["run"].replace("multipaxos-CA", "unanimous")
    summary["runs"][1] |= {"run": "unanimous", "title": "Unanimous", "leader": None}
    summary["runs"][1]["placement"] = None
    summary = only(summary, "epaxos", "unanimous")
    assert "EPaxos answers faster than Unanimous in 4 of 5 regions" in headline(summary)


def test_without_a_best_leader_the_headline_takes_the_fastest(summary):
    for run in summary["runs"]:
        run["placement"] = None
    summary["runs"].reverse()
    assert "faster than Multi-Paxos led from California in 4 of 5" in headline(summary)


def test_a_headline_of_one_region(summary):
    for phase in summary["phases"]:
        for part in ("cells", "comparisons"):
            phase[part] = [row for row in phase[part] if row["region"] == "VA"]
    assert "in its region (by 48.7 ms at the median)" in headline(summary)


def test_a_headline_of_two_regions(summary):
    for phase in summary["phases"]:
        for part in ("cells", "comparisons"):
            phase[part] = [row for row in phase[part] if row["region"] in ("VA", "JP")]
    assert "in both regions (by 48.7 to 59.3 ms at the median)" in headline(summary)


def test_a_headline_where_nobody_answered(summary):
    silence(summary, *(run["run"] for run in summary["runs"]))
    assert headline(summary) == "INVALID, not to be quoted: No command was answered."
    assert key_figures(summary) == []


def test_a_headline_where_only_the_rival_did_not_answer(summary):
    silence(summary, "multipaxos-CA")
    said = headline(summary)
    assert said.startswith("INVALID, not to be quoted: At 0 % conflicts EPaxos answers without ")
    assert "without figures in all 5 regions" in said
    assert not any(each.beside for each in key_figures(summary))


def test_what_is_suspect_says_so_in_the_headline(summary):
    summary["phases"][0]["health"][0]["loop_lag_p99_ms"] = 9.0
    assert headline(summary).startswith("SUSPECT: At 0 % conflicts")
