"""What a Locust run is asked for, read from options."""

import pytest

from bench.loadtest.options import (
    Offer,
    loop_of,
    parse_limits,
    parse_seconds,
    parse_steps,
    places,
    workload_text,
)
from epaxos.core.errors import ConfigError
from topology import find


def test_users_are_beside_the_replica_of_their_region():
    found = places("aws-5-2020")
    assert [place.url for place in found] == [f"http://127.0.0.1:{8001 + i}" for i in range(5)]
    assert all(place.title == place.replica for place in found)
    assert len({place.class_name for place in found}) == 5


def test_users_without_a_replica_ask_the_nearest():
    found = places("sosp13-figure4", 3, "VA,CA,JP,EU", "http://a:1,http://b:2,http://c:3")
    urls = dict(zip((r.title for r in find("sosp13-figure4", 3).regions), ("a:1", "b:2", "c:3")))
    assert [place.name for place in found] == ["VA", "CA", "JP", "EU"]
    assert all(place.url == f"http://{urls[place.replica]}" for place in found)
    assert any(place.title != place.replica for place in found)
    assert all(place.title == place.replica for place in found if place.title in urls)


def test_one_url_is_for_all_regions():
    assert {place.url for place in places("lan:3", at="http://127.0.0.1:2379/")} == {
        "http://127.0.0.1:2379"
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"at": "http://a:1,http://b:2"}, "--at names 2 URLs; lan:3 has 3 replicas"),
        ({"at": "ftp://a"}, "--at 'ftp://a' is no address"),
        ({"at": "http://a:port"}, "is no address"),
        ({"http_port": 65_535}, "--http-port 65535 must be between"),
    ],
)
def test_wrong_addresses_are_named(options, said):
    with pytest.raises(ConfigError, match=said):
        places("lan:3", **options)


def test_the_rate_decides_the_loop_where_no_tag_does():
    assert Offer(rate=50).open
    assert not Offer().open
    assert Offer(steps=(1.0, 2.0), loop="open").open
    assert not Offer(steps=(1.0, 2.0)).open
    assert loop_of([], 50) == loop_of(["open", "closed"], 0) == ""
    assert loop_of(["closed"], 0) == "closed"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loop": "open"}, "-T open needs a rate"),
        ({"loop": "closed", "rate": 5}, "is for the open loop"),
        ({"rate": -1}, "--rate -1 must be between 0"),
        ({"rate": 5, "steps": (1.0,)}, "leave --rate out"),
        ({"steps": (1.0,), "step_s": 2, "warmup_s": 2}, "leaves nothing of a step"),
        ({"target": "redis"}, "write epaxos or etcd"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        Offer(**settings)


def test_short_options_become_the_workload():
    assert workload_text("", "", 0, 0) == "conflict:0"
    assert workload_text("", "2.5", 10, 100) == "conflict:2.5,pool=10,value_size=100"
    assert workload_text("ycsb-a", "", 50, 0) == "ycsb-a:keys=50"
    with pytest.raises(ConfigError, match="not both"):
        workload_text("ycsb-a", "2", 0, 0)


def test_times_and_steps():
    assert [parse_seconds(text, "-t") for text in ("20", "20s", "1.5m", "1h")] == [
        20,
        20,
        90,
        3600,
    ]
    assert parse_steps("50,100, 200") == (50, 100, 200)
    assert parse_steps("") == ()
    for text in ("50,x", "0", "-1"):
        with pytest.raises(ConfigError, match="--steps"):
            parse_steps(text)
    with pytest.raises(ConfigError, match="--warmup '2 weeks'"):
        parse_seconds("2 weeks", "--warmup")


def test_limits_are_for_all_regions_or_for_one():
    regions = ["Tokyo", "Ireland"]
    assert parse_limits("", regions, "--max-p99") == {}
    assert parse_limits("250", regions, "--max-p99") == {"Tokyo": 250, "Ireland": 250}
    assert parse_limits("tokyo=300, 250", regions, "--max-p99") == {"Tokyo": 300, "Ireland": 250}
    assert parse_limits("ie=3", regions, "--max-p99", ["JP", "IE"]) == {"Ireland": 3}
    assert parse_limits("1=3", ["=x", "1"], "--max-p99", ["1", "2"]) == {"=x": 3}
    with pytest.raises(ConfigError, match=r"no region 'Paris'; choose among Tokyo, Ireland"):
        parse_limits("Paris=1", regions, "--max-p99")
    for text in ("fast", "Tokyo=fast", "-1"):
        with pytest.raises(ConfigError, match="write a number"):
            parse_limits(text, regions, "--max-p99")
