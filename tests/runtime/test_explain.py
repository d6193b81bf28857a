"""`epaxos explain`: its picture and sentences, and real replicas that are asked."""

import itertools
import json
import re
import time
from copy import deepcopy

import pytest
from processes import ProcessCluster

from epaxos.cli.exits import ExitCode
from epaxos.cli.explain import BAR_COLUMNS, latest_table, picture, sentences
from epaxos.cli.main import run
from epaxos.cli.output import console

SLOW = {
    "replica": "D",
    "region": "Ireland",
    "regions": {"A": "Virginia", "B": "California", "C": "Oregon", "D": "Ireland", "E": "Tokyo"},
    "per_second": 100,
    "instance": "D.11",
    "commands": 2,
    "first": [{"operation": "put", "key": "cart/17"}, {"operation": "get", "key": "k"}],
    "requests": [],
    "path": "slow",
    "nop": False,
    "leader": None,
    "forwarded": False,
    "answer_ms": 212.5,
    "late": False,
    "under_way": None,
    "age_ms": 5000.0,
    "stages": [
        {"name": "queue", "start_ms": 0.0, "ms": 0.3, "closed_by": None},
        {"name": "batch", "start_ms": 0.3, "ms": 0.0, "closed_by": None},
        {"name": "sync", "start_ms": 0.3, "ms": 0.2, "closed_by": None},
        {"name": "preaccept", "start_ms": 0.5, "ms": 127.0, "closed_by": "C"},
        {"name": "accept", "start_ms": 127.5, "ms": 70.0, "closed_by": "A"},
        {"name": "commit", "start_ms": 197.5, "ms": 0.0, "closed_by": None},
        {"name": "execute", "start_ms": 197.5, "ms": 15.0, "closed_by": None},
        {"name": "reply", "start_ms": 212.5, "ms": 0.0, "closed_by": None},
    ],
    "answers": [
        {"replica": "A", "at_ms": 70.6, "also": []},
        {"replica": "C", "at_ms": 127.5, "also": ["A.88"]},
    ],
    "accepts": [{"replica": "A", "at_ms": 197.5, "also": []}],
    "held_by": [{"instance": "A.88", "from_ms": 197.5, "ms": 15.0}],
}
ABOUT = {"A.88": "writes cart/17"}


def sample(**changes):
    return {**deepcopy(SLOW), **changes}


def test_picture_is_to_scale():
    lines = picture(SLOW)
    assert lines[0] == (
        "PUT cart/17 and 1 more command at Ireland · D.11 · slow path · answered after 212.5 ms"
    )
    bars = {line.split()[0]: line[22 : 22 + BAR_COLUMNS] for line in lines[2:]}
    assert bars["pre-accept"].count("━") == round(127.5 / 212.5 * 40) - round(0.5 / 212.5 * 40)
    assert len(bars["pre-accept"].rstrip()) == len(bars["accept"]) - len(bars["accept"].lstrip())
    assert bars["sync"].strip() == "╸"
    assert not bars.get("batch", "").strip()
    text = "\n".join(lines)
    assert "Virginia 70.6 · Oregon 127.5 +A.88 ◂ last" in text
    assert "held by A.88" in text


def test_sentences_say_why():
    assert sentences(SLOW, ABOUT) == [
        "queue: waited 0.3 ms because an instance on the same key was not executed",
        "slow path: Oregon had seen A.88 (writes cart/17, from Virginia)",
        "second round: Virginia completed the quorum",
        "execution waited 15.0 ms for A.88 (writes cart/17, from Virginia), which was not "
        "committed here",
        "all durations by the clock of Ireland",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"answers": SLOW["answers"][:1]}, "too few replicas answered in time"),
        ({"path": "fast", "stages": SLOW["stages"][:4]}, "all answers agreed; that of Oregon"),
        ({"path": "learned"}, "decided by another replica"),
        ({"nop": True}, "decided without it (a Nop)"),
        ({"leader": "B", "forwarded": True}, "forwarded to California, the leader"),
        ({"leader": "D", "path": "leader"}, "the vote of Virginia completed the majority"),
        ({"late": True}, "had stopped waiting"),
        ({"held_by": []}, "executed at once"),
    ],
)
def test_every_fate_has_its_sentence(changes, words):
    assert any(words in line for line in sentences(sample(**changes), {}))


def test_what_is_under_way_says_whom_it_heard():
    open_ended = sample(
        path=None,
        answer_ms=None,
        under_way="preaccept",
        late=True,
        stages=SLOW["stages"][:3],
        answers=SLOW["answers"][:1],
        accepts=[],
        held_by=[],
    )
    assert "not answered after 5,000.0 ms" in picture(open_ended)[0]
    assert picture(open_ended)[-1].endswith("still under way")
    said = sentences(open_ended, {})
    assert "not decided yet; so far heard of: Virginia" in said
    assert not any("executed at once" in line for line in said)


def test_the_table_has_a_column_per_stage(capfd):
    console().print(latest_table([SLOW, sample(stages=SLOW["stages"][:4], answer_ms=None)]))
    out = capfd.readouterr().out
    heading, first, second = [line for line in out.splitlines() if line.strip(" ─")]
    for word in ("queue", "pre-accept", "accept", "execute"):
        assert word in heading
    assert "127.0" in first
    assert "212.5" in first
    assert first.rstrip().endswith("Virginia")
    assert second.rstrip().endswith("Oregon")


def follow_another(replica):
    """Wait until somebody else leads; on a slow machine `replica` itself may have been first."""
    limit = time.monotonic() + 20
    while (leader := replica.status()["node"]["leader"]) in (None, "A"):
        assert time.monotonic() < limit
        replica.http("POST", "/v1/leader", b'{"to": "CA"}', {"Content-Type": "application/json"})
        time.sleep(0.1)
    assert leader in "BC"


def written_elsewhere(replica, protocol):
    """The name of a PUT and the headers of its answer; of Multi-Paxos one that another replica
    leads. On a slow machine leadership may move meanwhile, and the PUT fails."""
    limit = time.monotonic() + 60
    for number in itertools.count(17):
        if protocol == "multipaxos":
            follow_another(replica)
        name = {"X-Request-Id": f"order-{number}"}
        status, headers, _ = replica.http("PUT", "/v1/kv/cart", b"1", name)
        if status == 200:
            return f"order-{number}", headers
        assert time.monotonic() < limit, status
    return None


@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos"])
def test_a_cluster_explains_what_it_was_asked(tmp_path, capfd, protocol):
    def explain(*arguments):
        capfd.readouterr()
        code = run(["explain", *arguments])
        return code, *capfd.readouterr()

    with ProcessCluster(tmp_path, 3, protocol=protocol, leader="CA") as c:
        c.start_all(data=None, flags=["--durability", "memory"])
        everywhere = ("--cluster", str(c.config))
        code, out, _ = explain(*everywhere)
        assert (code, "no samples yet" in out) == (ExitCode.OK, True)
        order, headers = written_elsewhere(c[0], protocol)
        instance = headers["X-EPaxos-Instance"]
        for name in (instance, headers["ETag"], headers["ETag"].strip('"'), order):
            code, out, _ = explain(name, "--at", c[0].url)
            assert code == ExitCode.OK
            assert out.startswith(f"PUT cart at VA · {instance} ·")
        code, out, _ = explain(instance, "--json", *everywhere)
        document = json.loads(out)
        lengths = {stage["name"]: stage["ms"] for stage in document["stages"]}
        assert sum(lengths.values()) == pytest.approx(document["answer_ms"], abs=1e-6)
        if protocol == "epaxos":
            assert document["path"] == "fast"
            assert {"sync", "preaccept", "commit", "reply"} <= set(lengths)
            assert document["answers"][-1]["replica"] in "BC"
        else:
            assert document["forwarded"]
            assert document["leader"] in "BC"
            assert "leader" in lengths
        limit = time.monotonic() + 60
        while c[1].put("x", b"2") != 200:
            assert time.monotonic() < limit
        code, out, _ = explain(*everywhere)
        assert "PUT cart" in out
        assert "PUT x" in out
        code, out, _ = explain(*everywhere, "--via", "CA", "--json")
        assert {each["first"][0]["key"] for each in json.loads(out)["samples"]} == {"x"}
        code, _, err = explain("B.77", "--at", c[0].url)
        assert code == ExitCode.FAILED
        assert re.search(r"B\.77 is not among the [0-9]+ samples that VA keeps", err)
        code, _, err = explain("order-0", *everywhere)
        assert code == ExitCode.FAILED
        assert "none of 3 replicas keeps a sample of order-0" in err
        assert c[0].http("GET", "/v1/explain?limit=0")[0] == 400
        assert c[0].http("POST", "/v1/explain/A.1", b"")[0] == 405


def test_nothing_is_sampled_where_it_is_off(tmp_path, capfd):
    with ProcessCluster(tmp_path, 1, explain_per_s=0) as c:
        c.start_all(data=None, flags=["--durability", "memory"])
        assert c[0].put("x", b"1") == 200
        assert run(["explain", "--at", c[0].url]) == ExitCode.OK
        assert "explain_per_s" in capfd.readouterr().out
        assert run(["explain", "A.1", "--at", c[0].url]) == ExitCode.FAILED
        assert "nothing is sampled here" in capfd.readouterr().err


def test_bad_input_and_nobody_there(capfd, tmp_path):
    assert run(["explain", "A.1", "--at", "ftp://x"]) == ExitCode.CONFIG
    assert "is not an HTTP address" in capfd.readouterr().err
    assert run(["explain", "--at", "127.0.0.1:1", "--via", "JP"]) == ExitCode.CONFIG
    assert "leave --via" in capfd.readouterr().err
    assert run(["explain", "A.1", "--at", "127.0.0.1:1"]) == ExitCode.ADDRESS
    assert "cannot be reached" in capfd.readouterr().err
    c = ProcessCluster(tmp_path, 3)
    assert run(["explain", "A.1", "--cluster", str(c.config)]) == ExitCode.ADDRESS
    assert "no replica answers" in capfd.readouterr().err
    assert run(["explain", "--cluster", str(c.config), "--via", "Paris"]) == ExitCode.CONFIG
    assert "choose one of A (VA)" in capfd.readouterr().err
