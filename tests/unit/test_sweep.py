"""Experiments are run once, resumed, shared out, compared; nothing is lost and nothing is left."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from bench import Experiment, Results, workers
from bench.trials import executors, sweep
from bench.trials.executors import Failed, Here, Job, Processes, Stopped, choose, perform
from bench.trials.results import Table
from bench.trials.store import TrialStore, code_version, decode, encode, trial_key
from bench.trials.sweep import run_sweep
from epaxos.core.errors import AddressError, ConfigError, StorageError

CALM = {"simulated": True, "replicas": 3, "warmup_s": 0.2, "duration_s": 1.0, "rate": 120.0}


def small(name="mine", **more):
    """Two protocols, two repeats: four trials of a virtual second."""
    settings = {"protocol": ["epaxos", "multipaxos"], **CALM, **more}
    return Experiment(name, **{"repeats": 2, **settings})


@pytest.fixture(scope="module")
def packed():
    """The bytes of one finished trial, by protocol."""
    found = {}
    for trial in small(repeats=1).trials():
        settings = {name: getattr(trial, name) for name in trial.__dataclass_fields__}
        data = perform(Job(0, settings, trial_key(trial, "x"), code_version(), "unused"))
        assert not isinstance(data, Failed), data
        found[trial.protocol] = decode(data, Path(f"{trial_key(trial, 'x')}.trial"))
    return found


class Fake:
    """Answers at once, with the samples of another trial of the protocol."""

    def __init__(self, packed, stop_after=None, fails=lambda job: ""):
        self.ran = []
        self._packed = packed
        self._stop_after = stop_after
        self._fails = fails

    def title(self):
        return "a fake"

    def run(self, jobs, beat):
        for job in jobs:
            if self._stop_after is not None and len(self.ran) >= self._stop_after:
                raise KeyboardInterrupt
            self.ran.append(job)
            why = self._fails(job)
            if why:
                yield job, Failed(why)
                continue
            stored = self._packed[job.settings["protocol"]]
            yield job, encode(msgspec.structs.replace(stored, key=job.key, trial=job.settings))


def run(experiment, out, executor, **more):
    return run_sweep(experiment, out, executor, more.pop("watch", lambda standing: None), **more)


# What is kept ----------------------------------------------------------------------------------


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path, packed):
    first = Fake(packed, stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        run(small(), tmp_path, first)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    told = []
    second = Fake(packed)
    results = run(small(), tmp_path, second, watch=told.append)
    assert len(second.ran) == 1
    assert not {job.key for job in first.ran} & {job.key for job in second.ran}
    assert told[-1].reused == 3
    assert (told[-1].done, told[-1].trials, told[-1].total) == (1, 1, 1.0)
    assert results.manifest["reused"] == 3
    assert len(results.trials) == 4


def test_a_second_run_runs_nothing_and_writes_nothing_over(tmp_path, packed):
    before = run(small(), tmp_path, Fake(packed))
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = Fake(packed)
    after = run(small(), tmp_path, again)
    assert again.ran == []
    assert after.directory != before.directory
    assert {path: path.read_bytes() for path in kept} == kept


def test_more_repeats_run_only_those(tmp_path, packed):
    run(small(), tmp_path, Fake(packed))
    more = Fake(packed)
    results = run(small().repeated(3), tmp_path, more)
    assert [job.settings["seed"] for job in more.ran] == [3, 3]
    assert [len(each.repeats) for each in results.configurations] == [3, 3]


def test_results_stand_without_the_store(tmp_path, packed):
    results = run(small(), tmp_path, Fake(packed))
    for path in (tmp_path / "store").rglob("*.trial"):
        path.unlink()
    assert len(Results.load(results.directory).records()) == 6


def test_a_damaged_trial_is_named_put_aside_and_run_again(tmp_path, packed):
    first = Fake(packed)
    run(small(), tmp_path, first)
    store = TrialStore(tmp_path / "store")
    broken = store.path(first.ran[2].key)
    broken.unlink()  # the results have a link to it
    broken.write_bytes(b"epaxos trial 1\n" + bytes(50))
    second = Fake(packed)
    results = run(small(), tmp_path, second)
    assert [job.key for job in second.ran] == [first.ran[2].key]
    (note,) = results.manifest["notes"]
    assert str(broken) in note
    assert "checksum does not match; it was put aside" in note
    assert broken.with_name(f"{broken.name}.damaged").exists()


def test_results_with_a_damaged_trial_name_it(tmp_path, packed):
    results = run(small(), tmp_path, Fake(packed))
    path = next((results.directory / "trials").iterdir())
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StorageError, match=path.name):
        Results.load(results.directory).records()


def test_a_trial_that_fails_is_told_run_again_and_makes_all_invalid(tmp_path, packed):
    def why(job):
        return "no quorum" if job.settings["protocol"] == "epaxos" else ""

    results = run(small(), tmp_path, Fake(packed, fails=why))
    assert results.validity == "INVALID"
    assert results.reasons[0] == "2 trials failed: no quorum"
    assert [each.label for each in results.configurations] == ["Multi-Paxos @VA"]
    again = Fake(packed)
    assert run(small(), tmp_path, again).validity != "INVALID"
    assert {job.settings["protocol"] for job in again.ran} == {"epaxos"}


def test_where_everything_failed_there_are_results_that_say_so(tmp_path, packed):
    results = run(small(), tmp_path, Fake(packed, fails=lambda job: "no quorum"))
    assert results.validity == "INVALID"
    assert results.records() == []
    assert "nothing finished" in str(results.table())
    with pytest.raises(ConfigError, match="nothing finished"):
        results.plot.cdf()


def test_a_directory_without_results_is_told(tmp_path):
    with pytest.raises(ConfigError, match="holds no results of an experiment"):
        Results(tmp_path)


def test_stop_event_ends_sweep(tmp_path):
    stop = threading.Event()

    def watch(standing):
        if standing.done == 1:
            stop.set()

    with pytest.raises(Stopped):
        run_sweep(small(), tmp_path, Here(), watch, stop)
    assert len(list(TrialStore(tmp_path / "store").keys())) == 1


def test_real_trials_never_share_the_machine(tmp_path, packed, monkeypatch):
    here, others = Fake(packed), Fake(packed)
    monkeypatch.setattr(sweep, "Here", lambda: here)
    experiment = small(simulated=[True, False], repeats=1)
    run(experiment, tmp_path, others)
    assert [job.settings["simulated"] for job in others.ran] == [True, True]
    assert [job.settings["simulated"] for job in here.ran] == [False, False]


# Who runs them ---------------------------------------------------------------------------------


def outcomes(results):
    return [
        (stored.trial, stored.outcome, stored.optimum, stored.leader) for stored in results.trials
    ]


def test_processes_give_the_same_as_one(tmp_path):
    one = run(small(), tmp_path / "one", Here())
    two = run(small(), tmp_path / "two", Processes(2))
    assert outcomes(one) == outcomes(two)
    assert two.manifest["executor"] == "2 processes"
    assert one.records() == two.records()


def test_a_bug_in_one_trial_leaves_the_others(tmp_path, monkeypatch, capfd):
    genuine = executors.run_trial

    def break_one(trial, *more):
        assert trial.protocol == "epaxos", "a slot was decided twice"
        return genuine(trial, *more)

    monkeypatch.setattr(executors, "run_trial", break_one)
    results = run(small(repeats=1), tmp_path, Here())
    (failed,) = results.manifest["failed"]
    assert failed["why"].startswith("a bug, with its traceback on stderr: AssertionError: a slot")
    assert "Traceback" in capfd.readouterr().err
    assert len(results.trials) == 1


def test_a_worker_that_dies_costs_its_trial_and_is_replaced(tmp_path, monkeypatch):
    module = tmp_path / "deadly_for_a_test.py"
    module.write_text(
        "import os\n"
        "from epaxos.registry import find_protocol\n"
        "def protocol():\n"
        f"    if os.getpid() != {os.getpid()}:\n"
        "        os._exit(7)\n"
        "    return find_protocol('epaxos')\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    experiment = small(protocol=["deadly_for_a_test:protocol", "epaxos"], repeats=2)
    results = run(experiment, tmp_path / "out", Processes(1))
    whys = {each["why"] for each in results.manifest["failed"]}
    assert whys == {"its process ended before its answer (exit code 7)"}
    assert len(results.manifest["failed"]) == 2
    assert [stored.trial["protocol"] for stored in results.trials] == ["epaxos", "epaxos"]


def test_interrupted_processes_are_gone(tmp_path, monkeypatch):
    started = []
    genuine = workers.spawn

    def remember(*args, **more):
        started.append(genuine(*args, **more))
        return started[-1]

    monkeypatch.setattr(workers, "spawn", remember)

    def interrupt(standing):
        if started:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small(), tmp_path, Processes(2), watch=interrupt)
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_other_code_elsewhere_is_refused():
    job = Job(0, {}, "key", "0123", "unused")
    answer = perform(job)
    assert isinstance(answer, Failed)
    assert "runs other code" in answer.sentence


def test_who_runs_is_chosen():
    assert choose(1, "").title() == "one process"
    assert choose(4, "").title() == "4 processes"
    assert choose(4, "tcp://h:1").title() == "the Dask cluster at tcp://h:1"
    with pytest.raises(ConfigError, match="jobs = 0 must be 1 or more"):
        choose(0, "")


def test_a_run_beside_an_event_loop(tmp_path):
    results = asyncio.run(small(repeats=1).run_async(out=tmp_path, jobs=1))
    assert len(results.trials) == 2


async def test_a_cancelled_run_ends_and_keeps_what_is_finished(tmp_path):
    at_work = threading.Event()

    def watch(standing):
        if standing.done == 1:
            at_work.set()

    task = asyncio.create_task(small(repeats=20).run_async(out=tmp_path, jobs=1, watch=watch))
    await asyncio.to_thread(at_work.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    kept = len(list(TrialStore(tmp_path / "store").keys()))
    assert 1 <= kept < 40


# What is read off ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory, packed):
    return run(small(), tmp_path_factory.mktemp("results"), Fake(packed))


def test_records_are_flat_and_one_per_configuration_and_region(results):
    records = results.records()
    assert len(records) == 2 * 3
    assert all(
        isinstance(value, str | int | float | bool | None)
        for record in records
        for value in record.values()
    )
    first = records[0]
    assert (first["configuration"], first["region_title"]) == ("EPaxos", "California")
    assert first["repeats"] == 2
    assert first["answer_p50_low_ms"] <= first["answer_p50_ms"] <= first["answer_p50_high_ms"]
    assert first["answer_p50_ms"] == pytest.approx(first["optimum_ms"], rel=0.02)
    assert first["answer_p99_ms"] is None
    assert first["interval_over"] == "2 repeats and the samples within each"
    lines = (results.directory / "cells.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == records


def test_samples_are_one_per_measured_command(results):
    samples = list(results.samples())
    assert len(samples) == sum(record["samples"] for record in results.records())
    assert all(0 <= each["start_s"] < 1.0 for each in samples)
    assert {each["protocol"] for each in samples} == {"epaxos", "multipaxos"}
    assert all(each["commit_ms"] <= each["answer_ms"] for each in samples)


def test_a_table_is_text_and_html(results):
    table = results.table()
    lines = str(table).splitlines()
    assert lines[1].split()[:3] == ["protocol", "region", "optimum"]
    assert len(lines) == 3 + 6 + 3
    assert lines[-1] == "times in ms; intervals over 2 repeats and the samples within each"
    assert "fsync" in lines[-2]
    assert table._repr_html_().count("<tr>") == 7
    assert "&lt;b&gt;" in Table(["x"], [["<b>"]]).html()


def test_figures_have_the_panels_and_lines_that_were_asked_for(results):
    figure = results.plot.cdf(by="region")
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        cell.title for cell in results.cells[:3]
    ]
    by_protocol = results.plot.cdf(by="protocol", latency="commit")
    assert len(by_protocol.axes) == 2
    assert len(results.plot.bars().axes[0].patches) == 6
    assert len(results.plot.timeline().axes) == 4
    for wrong in (
        lambda: results.plot.cdf(by="rate"),
        lambda: results.plot.cdf(latency="total"),
        lambda: results.plot.bars("speed"),
    ):
        with pytest.raises(ConfigError, match="is unknown; one of"):
            wrong()


def test_too_many_configurations_for_a_figure_are_refused(tmp_path, packed):
    many = run(small(rate=[float(r) for r in range(100, 110)], repeats=1), tmp_path, Fake(packed))
    with pytest.raises(ConfigError, match="20 configurations are too many for one figure"):
        many.plot.bars()
    assert len(many.plot.bars(only=many.configurations[:4]).axes[0].patches) == 12


def test_a_page_is_whole_and_needs_no_network(results):
    from bench.reports.experiment import render

    page = render(results)
    assert page.count("<svg") == 2
    assert "http://" not in page.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")
    assert "EPaxos" in page
    assert "open loop, 120 commands/s per region" in page
    assert results.validity in page


# What differs ----------------------------------------------------------------------------------


def slower(packed, by_ms):
    """The same trials, all answers later by so much."""

    def late(sample):
        return msgspec.structs.replace(sample, answer_us=sample.answer_us + round(by_ms * 1000))

    return {
        protocol: msgspec.structs.replace(
            stored,
            outcome=msgspec.structs.replace(
                stored.outcome,
                load=msgspec.structs.replace(
                    stored.outcome.load, samples=[late(s) for s in stored.outcome.load.samples]
                ),
            ),
        )
        for protocol, stored in packed.items()
    }


def test_a_difference_is_found_with_its_interval_and_what_was_changed(tmp_path, packed, results):
    other = run(small(gate=False), tmp_path, Fake(slower(packed, 5.0)))
    found = results.diff(other)
    assert [row.verdict() for row in found.rows] == ["slower"] * 6
    median = found.rows[0].differences["answer", 50]
    assert median.value == pytest.approx(5.0)
    assert median.low <= 5.0 <= median.high
    assert found.rows[0].differences["commit", 50].significant is False
    assert found.rows[0].differences["answer", 99] is None
    assert found.changed == ["gate: gate in A, no gate in B"]
    assert "the answers of B are slower in 6 cells (by 5.0 ms: " in found.sentences()[0]
    assert other.diff(results).rows[0].verdict() == "faster"
    document = found.document()
    assert json.loads(json.dumps(document)) == document
    assert "+5.0" in str(found.table())


def test_the_same_results_differ_nowhere(results):
    found = results.diff(results)
    assert {row.verdict() for row in found.rows} == {"level"}
    assert found.changed == []
    assert found.sentences() == [
        "At the median, the answers of B are not significantly different in 6 cells.",
        "At the 95th percentile, the answers of B are not significantly different in 6 cells.",
    ]


def test_results_that_share_nothing_are_refused(tmp_path, packed, results):
    other = run(small(protocol="epaxos", rate=[130.0, 140.0]), tmp_path, Fake(packed))
    with pytest.raises(ConfigError, match="no configuration and region in common"):
        results.diff(other)


def test_cells_that_only_one_has_are_counted(tmp_path, packed, results):
    other = run(small(protocol=["epaxos"]), tmp_path, Fake(packed))
    found = results.diff(other)
    assert found.unmatched == (3, 0)
    assert found.sentences()[-1] == "3 cells of A not in the other."


# Beyond one machine ----------------------------------------------------------------------------

_CLUSTER = """
import sys
from distributed import LocalCluster

with LocalCluster(
    n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
) as cluster:
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def dask_address():
    """A scheduler with two workers, in a process of its own."""
    pytest.importorskip("distributed", reason="NOT TESTED: the Dask executor; install epaxos[dask]")
    process = subprocess.Popen(
        [sys.executable, "-c", f"if __name__ == '__main__':\n    {_indented()}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("tcp://127.0.0.1:"), address
        yield address
    finally:
        try:
            process.communicate("", timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _indented():
    return _CLUSTER.strip().replace("\n", "\n    ")


@pytest.mark.filterwarnings("default")
def test_a_dask_cluster_gives_the_same_as_one_process(tmp_path, dask_address):
    far = small(repeats=1).run(out=tmp_path / "far", dask=dask_address)
    near = run(small(repeats=1), tmp_path / "near", Here())
    assert outcomes(far) == outcomes(near)
    assert far.manifest["executor"] == f"the Dask cluster at {dask_address}"


@pytest.mark.filterwarnings("default")
def test_a_scheduler_that_does_not_answer_is_named(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="NOT TESTED: the Dask executor; install epaxos[dask]")
    monkeypatch.setattr(executors, "_DASK_CONNECTS_WITHIN_S", 1)
    with pytest.raises(AddressError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        small(repeats=1).run(out=tmp_path, dask="tcp://127.0.0.1:9")


def test_names_are_unique_among_results(tmp_path, packed):
    names = [run(small(), tmp_path, Fake(packed)).directory.name for _ in range(3)]
    assert all(a != b for a, b in itertools.pairwise(names))
