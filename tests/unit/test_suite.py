"""The benchmark's cases, and what is made of their repeats."""

from dataclasses import replace

import pytest

from bench.throughput.suite import ECHO, ThroughputOptions, WindowRun, sentences, summarize
from bench.throughput.window import WindowResult
from epaxos.cli.bench import rows_table
from epaxos.core.errors import ConfigError


def run_of(case, repeat, rate, cpu_us=2.0, marked=5000):
    result = WindowResult(
        commands_per_s=rate,
        p50_us=400 + repeat,
        p99_us=900,
        p99_9_us=950,
        marked=marked,
        refused=0,
        answered=1000,
        unanswered=0,
        cpu_s=0.1,
    )
    echo = case.setting.protocol == ECHO
    return WindowRun(
        repeat=repeat,
        case=case,
        result=result,
        cpu_us={"client": cpu_us} | ({ECHO: 1.0} if echo else {"A": cpu_us, "B": 1.0}),
        commands_per_instance=None if echo else 64.0,
        fast_share=1.0 if case.setting.protocol == "epaxos" else None,
        syncs_per_command=0.0,
    )


def test_every_figure_that_is_asked_of_the_benchmark_has_a_case():
    cases = {(c.setting.title, c.title, c.window) for c in ThroughputOptions().cases()}
    for window in (1, 15, 120, 960, 7680):
        for replicas in (3, 5):
            for name in ("EPaxos", "Multi-Paxos"):
                assert (f"{name}, {replicas} replicas, memory", "many per frame", window) in cases
        assert ("echo, no agreement", "many per frame", window) in cases
    assert ("EPaxos, 5 replicas, memory", "one per frame", 960) in cases
    assert ("EPaxos, 5 replicas, memory", "many per frame, one key", 960) in cases
    assert ("EPaxos, 5 replicas, memory, unbatched", "many per frame", 960) in cases
    assert ("EPaxos, 3 replicas, memory, unbatched", "many per frame", 960) in cases
    assert ("EPaxos, 5 replicas, fsync", "many per frame", 960) in cases
    assert ("EPaxos, 3 replicas, fsync", "many per frame", 1) in cases


def test_cases_at_one_window_run_at_the_largest_where_the_standard_is_not_asked_for():
    cases = ThroughputOptions(windows=(1, 100)).cases()
    assert {c.window for c in cases if c.form == "single"} == {100}


def test_only_picks_settings_by_their_title():
    assert {c.setting.durability for c in ThroughputOptions(only="FSYNC").cases()} == {"fsync"}
    with pytest.raises(ConfigError, match="nothing is called 'disk'; there are: EPaxos, 5"):
        ThroughputOptions(only="disk")


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"seconds": 0}, {"windows": (0,)}])
def test_what_is_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigError, match="must be between"):
        ThroughputOptions(**wrong)


def test_a_large_window_has_a_cluster_to_itself():
    groups = ThroughputOptions().groups()
    assert sorted(map(repr, ThroughputOptions().cases())) == sorted(
        repr(c) for g in groups for c in g
    )
    for group in groups:
        assert len({case.setting for case in group}) == 1
        if group[0].setting.protocol != ECHO:
            assert len(group) == 1 or all(case.window < 960 for case in group)


def test_the_estimate_grows_with_repeats():
    assert ThroughputOptions(repeats=4).estimate_s() == pytest.approx(
        2 * ThroughputOptions(repeats=2).estimate_s()
    )


def test_a_row_is_the_median_of_its_repeats():
    options = ThroughputOptions(only="Multi-Paxos, 3", windows=(960,))
    (case,) = options.cases()
    rates = (100_000.0, 300_000.0, 200_000.0)
    runs = [run_of(case, i, rate, cpu_us=i + 1.0) for i, rate in enumerate(rates)]
    (row,) = summarize(options, runs)["rows"]
    assert row["commands_per_s"] == 200_000
    assert row["repeats"] == [100_000, 300_000, 200_000]
    assert row["p50_ms"] == 0.401
    assert row["cpu_us"] == {"client": 2.0, "A": 2.0, "B": 1.0}
    assert row["cpu_us_all"] == 5.0
    assert row["fast_share"] is None


def test_a_p99_needs_a_thousand_marks_in_each_repeat():
    options = ThroughputOptions(only="Multi-Paxos, 3", windows=(960,))
    (case,) = options.cases()
    marks = ((5000, 5000), (5000, 999))
    found = [
        summarize(options, [run_of(case, i, 1e5, marked=m) for i, m in enumerate(each)])
        for each in marks
    ]
    assert [document["rows"][0]["p99_ms"] for document in found] == [0.9, None]


def test_sentences_compare_the_best_windows_and_name_the_ceiling():
    options = ThroughputOptions(repeats=1)
    speeds = {"epaxos": 200_000.0, "multipaxos": 190_000.0, ECHO: 2_000_000.0}
    runs = [
        run_of(case, 0, speeds[case.setting.protocol] * (1 + case.window / 1e6))
        for case in options.cases()
    ]
    document = summarize(options, runs)
    assert len(document["sentences"]) == 3
    assert (
        "Multi-Paxos's best (191,459 commands/s, window 7,680) is 95%" in document["sentences"][1]
    )
    assert "10% of it" in document["sentences"][2]
    assert rows_table(document["rows"]).row_count > len(document["rows"])


def test_sizes_are_those_asked_for_and_one_command_per_instance_runs_at_every_window():
    options = ThroughputOptions(replicas=(7, 9), unbatched=True, windows=(1, 960))
    cases = {(c.setting.title, c.window) for c in options.cases()}
    for name in ("EPaxos", "Multi-Paxos"):
        for size in (7, 9):
            for durability in ("memory", "fsync"):
                for window in (1, 960):
                    title = f"{name}, {size} replicas, {durability}, unbatched"
                    assert (title, window) in cases
    assert len(cases) == 16
    with pytest.raises(ConfigError, match="replicas 10 must be between 1 and 9"):
        ThroughputOptions(replicas=(3, 10))


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ((50, 100, 99, 96), "No setting has less than 96 % of its best at a larger window."),
        (
            (50, 100, 95, 80),
            "EPaxos, 7 replicas, memory, unbatched: window 7,680 has 80 % of the best, 100 "
            "commands/s at window 15.",
        ),
        ((50, 60, 70, 80), None),
    ],
)
def test_it_is_said_whether_more_load_gives_less(rates, said):
    windows = (1, 15, 960, 7680)
    options = ThroughputOptions(
        replicas=(7,), unbatched=True, windows=windows, only="EPaxos, 7 replicas, memory"
    )
    cases = options.cases()
    runs = [run_of(c, 0, float(rate)) for c, rate in zip(cases, rates) if c.window in windows]
    document = summarize(options, runs)
    assert document["sentences"] == ([] if said is None else [said])
    assert [each["best_window"] for each in document["saturation"]] == (
        [] if said is None else [15]
    )


def test_a_share_that_is_not_all_is_not_100_percent():
    options = ThroughputOptions(only="EPaxos, 5 replicas, memory", windows=(960,))
    runs = [replace(run_of(c, 0, 1e5), fast_share=0.99996) for c in options.cases()]
    rows = summarize(options, runs)["rows"]
    assert rows[0]["fast_share"] == 0.99996
    assert "99.99 %" in [*rows_table(rows).columns[-1].cells]


def test_nothing_is_said_of_what_was_not_run():
    options = ThroughputOptions(only="EPaxos, 5 replicas, memory", windows=(960,))
    assert sentences(summarize(options, [run_of(c, 0, 1e5) for c in options.cases()])["rows"]) == []
