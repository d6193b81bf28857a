"""Locust against a real cluster, as a subprocess: Locust patches sockets when it is imported."""

import csv
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cluster import Cluster, ClusterOptions, Ports, free_ports
from topology import find

LOCUSTFILE = Path(__file__).parents[2] / "bench" / "locustfile.py"


def neighbouring_ports(count):
    """The first of some free neighbouring ports: the locustfile counts upwards from one."""
    for base in range(20_011, 60_000, 97):
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
    with Cluster(sites, directory, ClusterOptions(durability="memory"), ports) as cluster:
        cluster.start()
        yield first


def locust(*options, cwd):
    return subprocess.run(
        [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", *options],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("rate", ["0", "40"])
def test_each_region_has_its_own_statistics(base, tmp_path, rate):
    done = locust(
        *("--topology", "lan:3", "--http-port", str(base), "-u", "3", "-r", "3", "-t", "4s"),
        *("--rate", rate, "--conflict-rate", "2", "--csv", "out", "--only-summary"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with (tmp_path / "out_stats.csv").open() as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    for region in ("Region 1", "Region 2", "Region 3"):
        row = rows[f"PUT [{region}]"]
        assert int(row["Request Count"]) > 20
        assert int(row["Failure Count"]) == 0
        assert float(row["50%"]) > 0


def test_a_run_without_a_cluster_fails(tmp_path):
    first = neighbouring_ports(3)
    done = locust(
        *("--topology", "lan:3", "--http-port", str(first), "-u", "3", "-r", "3", "-t", "2s"),
        "--only-summary",
        cwd=tmp_path,
    )
    assert done.returncode == 1


def test_a_wrong_topology_is_one_line(tmp_path):
    done = locust("--topology", "aws-5-2021", cwd=tmp_path)
    assert done.returncode != 0
    assert "there is no topology 'aws-5-2021'" in done.stderr
    assert "Traceback" not in done.stderr
