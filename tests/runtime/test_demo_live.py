"""A demonstration with real replicas, as a new user would see it."""

import json

from bench.demo import EPAXOS, MULTIPAXOS
from epaxos.cli.exits import ExitCode
from epaxos.cli.main import run


def test_both_clusters_run_at_once_and_are_followed_live(tmp_path, capsys):
    line = ["demo", "region-down", "--topology", "lan:3", "--seconds", "8"]
    assert run([*line, "--out", str(tmp_path)]) == ExitCode.OK
    said = capsys.readouterr()
    assert "starting all replicas" in said.err
    assert f"{MULTIPAXOS} " in said.err
    assert "without an answer for up to" in said.out
    (place,) = tmp_path.glob("*-demo-region-down*")
    assert (place / "region-down.png").stat().st_size > 10_000
    assert not (place / "replicas").exists()
    document = json.loads((place / "demo.json").read_text())
    assert set(document["median_ms"]) == {MULTIPAXOS, EPAXOS}
    answered = [v for values in document["median_ms"][EPAXOS] for v in values if v is not None]
    assert answered
