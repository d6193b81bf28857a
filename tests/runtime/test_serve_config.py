"""Settings: what wins, and that each mistake is named with its place and its remedy."""

import pytest

from epaxos.core.errors import ConfigError
from epaxos.runtime.config import config_hash, find_member, load_cluster, load_config

GOOD = """
cluster = "c1"
topology = "aws-5-2020"
[[replicas]]
region = "VA"
peer_port = 7001
client_port = 7101
http_port = 7201
[[replicas]]
region = "CA"
peer_port = 7002
client_port = 7102
http_port = 7202
"""


def load(tmp_path, text=GOOD, overrides=None, environment=None):
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    return load_cluster(path, overrides or {}, environment or {})


def test_flags_win_over_environment_over_file_over_default(tmp_path):
    assert load(tmp_path).seed == 1
    assert load(tmp_path, "seed = 2\n" + GOOD).seed == 2
    environment = {"EPAXOS_SEED": "3", "EPAXOS_GATE": "false", "EPAXOS_CONFIG": "x", "HOME": "y"}
    cluster = load(tmp_path, "seed = 2\n" + GOOD, {"gate": None}, environment)
    assert (cluster.seed, cluster.gate) == (3, False)
    assert load(tmp_path, "seed = 2\n" + GOOD, {"seed": 4}, environment).seed == 4


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x", "is not TOML"),
        ("", "cluster is missing"),
        ("sede = 4\n" + GOOD, "sede is not a setting; did you mean seed"),
        ("seed = 'a'\n" + GOOD, "seed: expected int, got str"),
        ("durability = 'disk'\n" + GOOD, "durability: write fsync or memory"),
        ("protocol = 'raft'\n" + GOOD, "unknown protocol 'raft'; choose one of epaxos, multip"),
        ("live_bytes = 4\n" + GOOD, "live_bytes = 4 must be between"),
        (
            "leader = 'XX'\n" + GOOD,
            r"leader = 'XX' is none of the replicas; choose one of A \(VA\)",
        ),
        (GOOD + "extra = 1", r"replicas\[1\].extra is not a setting"),
        (GOOD.replace("7102", "'7102'"), r"replicas\[1\].client_port: expected int, got str"),
        (GOOD.replace("7102", "7001"), r"replicas\[1\].client_port = 7001 is also replicas\[0\]"),
        (GOOD.replace("7102", "77102"), r"replicas\[1\].client_port = 77102 must be between"),
        (GOOD + "host = '0.0.0.0'", "set insecure = true"),
        ("emulate = true\ninsecure = true\n" + GOOD + "host = '10.0.0.1'", "emulate = false"),
        ("emulate = true\n" + GOOD.replace("topology", "# "), "emulate = true needs a topology"),
        ("cluster = 'c'\nreplicas = []", "a cluster has 1 to 9"),
        (GOOD.replace("c1", ""), "cluster = ''"),
    ],
)
def test_each_mistake_is_named(tmp_path, text, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "cluster.toml"))


def test_a_wrong_environment_variable_is_named(tmp_path):
    with pytest.raises(ConfigError, match="EPAXOS_SEED = 'many': expected int"):
        load(tmp_path, environment={"EPAXOS_SEED": "many"})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml"):
        load_cluster(tmp_path / "none.toml", {}, {})


@pytest.mark.parametrize(("text", "me"), [("A", 0), ("b", 1), ("va", 0), ("CA", 1), ("1", 1)])
def test_a_replica_has_three_names(tmp_path, text, me):
    assert find_member(load(tmp_path), text) == me


def test_fsync_needs_a_directory(tmp_path):
    path = tmp_path / "cluster.toml"
    path.write_text(GOOD)
    with pytest.raises(ConfigError, match="--data DIR"):
        load_config(path, "A", None, {}, {})
    assert load_config(path, "A", None, {"durability": "memory"}, {}).data is None


def test_the_hash_covers_what_must_be_equal(tmp_path):
    one = load(tmp_path)
    assert config_hash(one) == config_hash(load(tmp_path, "admin = true\n" + GOOD))
    assert config_hash(one) != config_hash(load(tmp_path, "gate = false\n" + GOOD))
    assert config_hash(one) != config_hash(load(tmp_path, GOOD.replace("7002", "7003")))


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "cluster.toml").write_text("\ufeff" + GOOD, encoding="utf-8")
    assert load_cluster(tmp_path / "cluster.toml", {}, {}).seed == 1
