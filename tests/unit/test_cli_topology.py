"""`epaxos topology`: tables, documents, files for other programs."""

import csv
import io
import json
import subprocess

import pytest

from epaxos.cli.exits import ExitCode
from epaxos.cli.main import run


def shown(capsys, *arguments):
    assert run(["topology", *arguments]) == ExitCode.OK
    return capsys.readouterr().out


def test_list_names_everything_that_can_be_asked_for(capsys):
    text = shown(capsys, "list")
    for word in ("aws-5-2020 (default)", "sosp13-figure4", "azure:REGION", "one-far:", "lan[:N]"):
        assert word in text


def test_list_of_a_cloud(capsys):
    assert "Frankfurt" in shown(capsys, "list", "aws")
    assert any(
        region["name"] == "eu-central-1"
        for region in json.loads(shown(capsys, "list", "aws", "--json"))
    )


def test_list_as_json(capsys):
    document = json.loads(shown(capsys, "list", "--json"))
    assert document["named"][0]["name"] == "aws-5-2020"
    assert document["clouds"]["gcp"] == 20


def test_show(capsys):
    text = shown(capsys, "show", "sosp13-figure4", "--replicas", "3")
    assert "Ireland (EU)" in text
    assert "85.0" in text
    assert "source: " in text


def test_show_as_json(capsys):
    document = json.loads(shown(capsys, "show", "--json"))
    assert document["regions"][3]["title"] == "Ireland"
    assert document["rtt_ms"][0][1] == document["rtt_ms"][1][0]


def test_show_as_csv(capsys):
    rows = list(csv.DictReader(io.StringIO(shown(capsys, "show", "lan:3", "--format", "csv"))))
    assert len(rows) == 6
    assert rows[0]["rtt_ms"] == "0.200"


def test_show_as_netem_is_a_script_that_bash_accepts(capsys, tmp_path):
    script = tmp_path / "netem.sh"
    spec = "aws:us-east-1,eu-west-1"
    assert shown(capsys, "show", spec, "--format", "netem", "--out", str(script)) == ""
    assert "ADDR_eu_west_1" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True, timeout=60)


def test_predict(capsys):
    text = shown(capsys, "predict", "--leader", "best,worst,Oregon")
    assert "Multi-Paxos @CA" in text
    assert "Multi-Paxos @EU" in text
    assert "Multi-Paxos @OR" in text
    assert "California, Ireland" in text


def test_predict_with_a_dead_region(capsys):
    document = json.loads(shown(capsys, "predict", "--down", "California", "--json"))
    assert document["down"] == ["CA"]
    assert [each["region"] for each in document["epaxos"]] == ["VA", "OR", "EU", "JP"]
    assert "CA" not in document["multipaxos"]
    assert len(document["multipaxos"]) == 2


def test_predict_adds_three_syncs_and_the_hop(capsys):
    bare = json.loads(shown(capsys, "predict", "--json"))
    added = json.loads(shown(capsys, "predict", "--sync-ms", "1", "--hop-ms", "0.5", "--json"))
    assert added["added_ms"] == 3.5
    assert added["epaxos"][0]["fast_ms"] == pytest.approx(bare["epaxos"][0]["fast_ms"] + 3.5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "aws-5-2002"], "did you mean aws-5-2020?"),
        (["list", "aw"], "choose one of aws, "),
        (["show", "--out", "x"], "--out needs --format"),
        (["show", "--format", "csv", "--out", "/nonexistent/x"], "name another file"),
        (["predict", "--leader", "CA", "--down", "CA"], "--leader CA is down"),
        (["predict", "--down", "CA,VA,OR"], "fewer than the quorum of 3"),
        (["predict", "--down", "Mars"], "no region 'Mars'"),
    ],
)
def test_what_cannot_be_done_is_one_line(capsys, arguments, words):
    assert run(["topology", *arguments]) == ExitCode.CONFIG
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert words in error
