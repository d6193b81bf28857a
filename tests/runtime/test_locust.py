"""Locust against a real cluster, as a subprocess: Locust patches sockets when it is imported."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.clusters.local import ClusterOptions, LocalCluster, Ports, free_port_numbers, free_ports
from topology import find

LOCUSTFILE = Path(__file__).parents[2] / "bench" / "locustfile.py"
REGIONS = ("Region 1", "Region 2", "Region 3")
ETCD = shutil.which("etcd") or os.environ.get("EPAXOS_TEST_ETCD", "")
WAIT_S = 120


def neighbouring_ports(count):
    """The first of some free neighbouring ports: the locustfile counts upwards from one."""
    # By chance, since two workers of the test runner may look at the same moment.
    for _ in range(1_000):
        (base,) = free_port_numbers(1)
        sockets = [socket.socket() for _ in range(count)]
        try:
            for offset, each in enumerate(sockets):
                each.bind(("127.0.0.1", base + offset))
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
        return base
    raise AssertionError("no free ports")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A running cluster of three regions; the HTTP port of the first."""
    sites = find("lan:3")
    first = neighbouring_ports(3)
    ports = [
        Ports(each.peer, each.client, first + number) for number, each in enumerate(free_ports(3))
    ]
    directory = tmp_path_factory.mktemp("locust")
    with LocalCluster(sites, directory, ClusterOptions(durability="memory"), ports) as cluster:
        cluster.start()
        yield first


def command(*options):
    head = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--topology", "lan:3"]
    return [*head, *map(str, options)]


def locust(*options, cwd):
    return subprocess.run(
        command("--headless", "--only-summary", *options),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


@contextmanager
def running(*options, cwd):
    """A Locust that runs; it is ended whatever happens."""
    with (cwd / "log").open("w") as log:
        process = subprocess.Popen(
            command(*options), cwd=cwd, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(WAIT_S)


def get(url, **form):
    """JSON from a page; a form is posted to it."""
    body = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(url, body, timeout=WAIT_S) as answer:
        return json.load(answer)


def wait_for(holds, process=None):
    limit = time.monotonic() + WAIT_S
    while time.monotonic() < limit:
        try:
            if holds():
                return
        except OSError:
            pass
        assert process is None or process.poll() is None
        time.sleep(0.2)
    raise AssertionError("it did not come")


def rows_of(path):
    with path.open() as file:
        return {row["Name"]: row for row in csv.DictReader(file)}


def test_open_loop_has_statistics_and_histograms_per_region(base, tmp_path):
    done = locust(
        *("--http-port", base, "-u", 6, "-r", 6, "-t", "4s", "--rate", 40, "--conflict-rate", 2),
        *("--csv", "out", "--results", "found", "--max-p99", "60000,Region 2=0.001"),
        cwd=tmp_path,
    )
    rows = rows_of(tmp_path / "out_stats.csv")
    document = json.loads((tmp_path / "found" / "load.json").read_text())
    assert document["setup"]["loop"] == "open"
    assert document["setup"]["protocol"] == "epaxos"
    (step,) = document["steps"]
    for region, found in zip(REGIONS, step["regions"]):
        row = rows[f"PUT [{region}]"]
        assert int(row["Request Count"]) > 20
        assert int(row["Failure Count"]) == 0
        assert float(row["50%"]) > 0
        assert found["answered"] == found["sent"] <= int(row["Request Count"])
        assert sum(found["paths"].values()) == found["commit"]["samples"] == found["answered"]
        assert found["commit"]["p50"] <= found["answer"]["p50"]
        assert (tmp_path / "found" / f"{region.replace(' ', '')}-answer.hgrm").exists()
    (generator,) = document["generators"]
    assert generator["start_error_p99_ms"] > 0
    assert done.returncode == 1
    assert "not met: Region 2: p99" in done.stdout
    assert "Region 1: p99" not in done.stdout
    assert "open loop · 40 commands/s per region · conflict:2" in done.stdout


def test_closed_loop_reads_modifies_and_writes(base, tmp_path):
    done = locust(
        *("--http-port", base, "-t", "3s", "-T", "closed", "-u", 6, "--warmup", "0.5s"),
        *("--workload", "ycsb-f", "--keys", 2, "--csv", "out"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = rows_of(tmp_path / "out_stats.csv")
    for operation in ("GET", "CAS", "CAS 412"):
        found = [rows[f"{operation} [{r}]"] for r in REGIONS if f"{operation} [{r}]" in rows]
        assert sum(int(row["Request Count"]) for row in found) > 0
        assert sum(int(row["Failure Count"]) for row in found) == 0
    assert rows["GET [Region 1]"]["Type"] == "GET"


def test_hosts_that_locust_was_told_are_asked(base, tmp_path):
    (closed,) = free_port_numbers(1)
    other = json.dumps({"user_class_name": "Region1", "host": f"http://127.0.0.1:{closed}/"})
    done = locust(
        *("--http-port", base, "--config-users", f"[{other}]", "-t", "2s", "-u", 3),
        *("--results", "found", "--max-fail-ratio", 1),
        cwd=tmp_path,
    )
    first, second, _ = json.loads((tmp_path / "found" / "load.json").read_text())["steps"][0][
        "regions"
    ]
    assert first["url"] == f"http://127.0.0.1:{closed}"
    assert (first["answered"], second["failed"]) == (0, 0), done.stdout
    assert second["answered"] > 0
    done = locust(
        *("--http-port", closed, "--host", f"http://127.0.0.1:{base + 2}", "-t", "2s", "-u", 3),
        *("--results", "found"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "found" / "load.json").read_text())["steps"][0]["regions"]
    assert {row["url"] for row in rows} == {f"http://127.0.0.1:{base + 2}"}
    done = locust("--host", "nowhere", "-t", "1s", cwd=tmp_path)
    assert done.returncode == 1
    assert "'nowhere' is no address: write for example" in done.stdout + done.stderr


def test_steps_with_processes_divide_the_rate(base, tmp_path):
    done = locust(
        *("--http-port", base, "--processes", 2, "-T", "open", "--steps", "20,60"),
        *("--step-time", "3s", "--warmup", "0.5s", "--results", "found"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "found" / "load.json").read_text())
    assert [step["wanted"] for step in document["steps"]] == [20, 60]
    assert [each["process"] for each in document["generators"]] == ["0", "1"]
    for step in document["steps"]:
        assert step["users"] == 6
        expected = 3 * step["wanted"] * step["measured_s"]
        assert abs(step["total"]["sent"] - expected) < 6 * expected**0.5
        assert step["total"]["answered"] == step["total"]["sent"]
        # Keys of different users differ: nothing conflicts.
        assert set(step["total"]["paths"]) == {"fast"}
    assert not (tmp_path / "found" / "live.json").exists()


def test_master_and_worker(base, tmp_path):
    (port,) = free_port_numbers(1)
    wire = ("--master-port", port)
    with running("--worker", *wire, "--http-port", base, cwd=tmp_path) as worker:
        done = locust(  # it does not know where the replicas are: the worker does
            *("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port),
            *("--expect-workers", 1, "-t", "4s", "--rate", 30),
            *("--seed", 5, "--results", "found"),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert worker.wait(WAIT_S) == 0
    document = json.loads((tmp_path / "found" / "load.json").read_text())
    assert document["setup"]["seed"] == 5
    assert all(row["answered"] > 0 for row in document["steps"][0]["regions"])
    assert document["generators"][0]["cpu_share"] > 0


def test_a_region_without_a_replica_fails_by_name(base, tmp_path):
    (closed,) = free_port_numbers(1)
    at = [f"http://127.0.0.1:{port}" for port in (base, base + 1, closed)]
    done = locust("--at", ",".join(at), "-t", "3s", "-u", 6, cwd=tmp_path)
    assert done.returncode == 1
    assert f"Region 3: no good answer from {at[2]}: cannot connect" in done.stdout
    assert "INVALID" in done.stdout
    assert "not met: Region 3: no good answer at all" in done.stdout
    assert "not met: Region 1" not in done.stdout


def test_a_wrong_topology_is_one_line(tmp_path):
    done = locust("--topology", "aws-5-2021", cwd=tmp_path)
    assert done.returncode != 0
    assert "there is no topology 'aws-5-2021'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_web_page_has_our_options_and_figures(base, tmp_path):
    (port,) = free_port_numbers(1)
    url = f"http://127.0.0.1:{port}"
    with running(
        *("--web-host", "127.0.0.1", "--web-port", port, "--http-port", base, "-u", 3),
        cwd=tmp_path,
    ) as process:
        wait_for(lambda: get(f"{url}/epaxos") == {"state": "no run yet"}, process)
        page = urllib.request.urlopen(url, timeout=WAIT_S).read().decode()
        for option in ("conflict_rate", "workload", "value_size", "topology", "rate"):
            assert option in page
        started = get(f"{url}/swarm", user_count=3, spawn_rate=3, rate="30", warmup="0.2s")
        assert started["success"]

        def answered():
            found = get(f"{url}/epaxos")
            return "steps" in found and all(r["answered"] for r in found["steps"][0]["regions"])

        wait_for(answered, process)
        assert get(f"{url}/stop", really="yes")["success"]
        wait_for(lambda: get(f"{url}/stats/requests")["state"] == "stopped", process)
        document = get(f"{url}/epaxos")
        assert document["setup"]["loop"] == "open"
        assert document["setup"]["rate"] == 30
        process.send_signal(signal.SIGINT)
        process.wait(WAIT_S)


@pytest.mark.skipif(not ETCD, reason="no etcd here: install etcd-server, or set EPAXOS_TEST_ETCD")
def test_the_same_file_loads_etcd(tmp_path):
    client, peer = free_port_numbers(2)
    url, peers = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    server = [
        *(ETCD, "--data-dir", str(tmp_path / "data"), "--listen-client-urls", url),
        *("--advertise-client-urls", url, "--listen-peer-urls", peers),
        *("--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"),
    ]
    with (tmp_path / "etcd.log").open("w") as log:
        process = subprocess.Popen(server, stdout=log, stderr=log)
    try:
        wait_for(lambda: get(f"{url}/health")["health"] == "true", process)
        done = locust(
            *("--target", "etcd", "--at", url, "-t", "3s", "-u", 6, "--warmup", "0.5s"),
            *("--workload", "ycsb-f", "--keys", 2, "--csv", "out"),
            cwd=tmp_path,
        )
    finally:
        process.kill()
        process.wait(WAIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = rows_of(tmp_path / "out_stats.csv")
    for operation in ("GET", "CAS", "CAS 412"):
        found = [rows[f"{operation} [{r}]"] for r in REGIONS if f"{operation} [{r}]" in rows]
        assert sum(int(row["Request Count"]) for row in found) > 0
    assert "lan:3 · etcd · closed loop" in done.stdout


def test_regions_may_be_called_like_what_the_file_has(tmp_path):
    titles = ["Station", "Region User", "type", "Load-Session", "events", "Steps"]
    lines = [f'[regions.r{i}]\ntitle = "{title}"\n' for i, title in enumerate(titles)]
    for i in range(len(titles)):
        lines += [f"[links.r{i}-r{j}]\nrtt_ms = 1\n" for j in range(i + 1, len(titles))]
    (tmp_path / "own.toml").write_text("".join(lines))
    done = locust("--topology", "own.toml", "--steps", "1,2", "--list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split("Available Users:")[-1].strip().splitlines()) == len(titles)
