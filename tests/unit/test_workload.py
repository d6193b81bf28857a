"""Workloads: everything follows from the seed, and each kind asks for what it is defined to."""

import random
import re
from collections import Counter
from itertools import count, islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from epaxos.core.command import Operation, decode_cas
from epaxos.core.errors import ConfigError
from epaxos.workload import OWN_KEY, Conflict, Normal, Uniform, parse_workload, workload_names
from epaxos.workload.zipf import Gray, Truncated, _hash, scatter, zeta

REGIONS = ("VA", "CA", "JP")
TEXTS = (
    "conflict:2",
    "conflict:2,pool=10,puts=0.5,value_size=100",
    "conflict:12.5,value_size=uniform(16,1024)",
    "zipf:theta=0.9,keys=1000",
    "zipf:theta=0.99,keys=1000000000,scramble=true",
    "zipf:s=1.2,keys=1000,value_size=normal(256,64.5)",
    "ycsb-a",
    "ycsb-b",
    "ycsb-c",
    "ycsb-d",
    "ycsb-f",
    "hot",
    "hot:80,hot=200",
    "local:remote=20,keys=100,drift=2.5",
)


def workload(text, seed=1):
    return parse_workload(text, seed, REGIONS)


def first(asked, region="VA", number=2000, client=0):
    return list(islice(asked.commands(region, client), number))


def chi_square(found, expected):
    """In standard deviations from its mean; rare outcomes are taken together."""
    order = np.argsort(-expected)
    found, expected = found[order], expected[order]
    common = expected >= 10
    found = np.append(found[common], found[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    if expected[-1] == 0:
        assert found[-1] == 0
        found, expected = found[:-1], expected[:-1]
    statistic = ((found - expected) ** 2 / expected).sum()
    freedom = len(found) - 1
    return (statistic - freedom) / (2 * freedom) ** 0.5


def ranks(source, draws, keys, seed=7):
    rng = random.Random(seed)
    return np.bincount([source.rank(rng.random()) for _ in range(draws)], minlength=keys)


# All kinds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_gives_itself_back(text):
    assert str(workload(text)) == text
    assert workload(str(workload(text))) == workload(text)


def test_what_is_the_default_is_left_out():
    assert str(workload(" zipf: theta = 0.9, keys=1000000, puts=1 ")) == "zipf:theta=0.9"
    assert str(workload("conflict:percent=2.0,pool=1")) == "conflict:2"


@pytest.mark.parametrize("text", TEXTS)
def test_commands_follow_from_seed_region_and_client(text):
    asked = workload(text)
    assert first(asked, number=300) == first(workload(text), number=300)
    others = (
        first(workload(text, 2), number=300),
        first(asked, "CA", 300),
        first(asked, number=300, client=1),
    )
    for other in others:
        assert text == "hot" or other != first(asked, number=300)


def test_clients_of_a_seed_keep_what_they_asked_for_when_first_recorded():
    asked = Conflict(50.0, pool=2, puts=0.5, value_size=4, seed=3)
    assert [(c.operation.name, c.key) for c in islice(asked.commands("VA"), 5)] == [
        ("PUT", b"shared-1"),
        ("PUT", b"shared-0"),
        ("GET", b"VA-50-3"),
        ("PUT", b"shared-0"),
        ("GET", b"VA-50-5"),
    ]
    assert asked.arrivals("VA", 50, 0.1).tolist() == [23918, 54474, 58270, 87317]


def test_arrivals_are_a_poisson_process_of_the_rate():
    starts = Conflict(0, seed=5).arrivals("VA", 200, 50)
    assert (np.diff(starts) >= 0).all()
    assert starts[0] >= 0
    assert starts[-1] < 50e6
    assert 9500 < len(starts) < 10500
    gaps = np.diff(starts)
    assert 0.93 < gaps.std() / gaps.mean() < 1.07
    assert (starts == Conflict(0, seed=5).arrivals("VA", 200, 50)).all()
    assert not np.array_equal(starts, Conflict(0, seed=5).arrivals("CA", 200, 50))
    assert not np.array_equal(starts, Conflict(0, seed=6).arrivals("VA", 200, 50))


def test_other_kinds_start_at_the_same_moments():
    starts = [workload(text).arrivals("VA", 50, 10) for text in ("ycsb-a", "zipf:s=1.5", "hot")]
    assert all(np.array_equal(starts[0], each) for each in starts)


@pytest.mark.parametrize("text", ["conflict:20", "zipf:theta=0.5,keys=100", "hot:50"])
def test_puts_carry_values_and_gets_none(text):
    commands = first(workload(f"{text},puts=0.25,value_size=7"))
    assert {len(c.argument) for c in commands if c.operation == Operation.PUT} == {7}
    assert {c.argument for c in commands if c.operation == Operation.GET} == {b""}
    assert 420 < sum(c.operation == Operation.PUT for c in commands) < 580


def test_sizes_of_values_are_drawn():
    sizes = [len(c.argument) for c in first(workload("conflict:0,value_size=uniform(16,19)"))]
    assert set(sizes) == {16, 17, 18, 19}
    assert all(420 < number < 580 for number in Counter(sizes).values())
    sizes = [len(c.argument) for c in first(workload("conflict:0,value_size=normal(100,40)"))]
    assert 95 < np.mean(sizes) < 105
    assert 36 < np.std(sizes) < 44
    assert min(sizes) >= 0
    assert max(sizes) <= 260
    assert Normal(0.0, 10.0).draw(random.Random(1)) >= 0
    assert Uniform(3, 3).draw(random.Random(1)) == 3


# Conflict rates, hot keys, homes ------------------------------------------------------------------


def test_private_keys_are_used_once_by_one_client():
    asked = workload("conflict:20")
    clients = [("VA", 0), ("VA", 1), ("VA", 11), ("CA", 0), ("CA", 1)]
    streams = [first(asked, region, client=client) for region, client in clients]
    keys = [c.key for stream in streams for c in stream if c.shared == OWN_KEY]
    assert len(set(keys)) == len(keys)


def test_private_keys_differ_between_conflict_rates():
    keys = [{c.key for c in first(workload(f"conflict:{c}"))} for c in (1, 2)]
    assert keys[0] & keys[1] <= {b"shared-0"}


@pytest.mark.parametrize(
    ("conflict", "low", "high"), [(0, 0, 0), (20, 320, 480), (100, 2000, 2000)]
)
def test_share_of_commands_on_the_shared_key(conflict, low, high):
    shared = [c for c in first(Conflict(conflict)) if c.shared != OWN_KEY]
    assert low <= len(shared) <= high
    assert len({c.key for c in shared}) <= 1


def test_shared_keys_are_the_same_in_all_regions():
    asked = Conflict(100, pool=3)
    assert {c.key for c in first(asked, "VA")} == {c.key for c in first(asked, "CA")}
    assert len({c.key for c in first(asked, "VA")}) == 3


def test_every_command_is_on_the_hot_key_unless_said_otherwise():
    assert {c.key for region in REGIONS for c in first(workload("hot"), region)} == {b"key-0"}
    found = [c.shared for c in first(workload("hot:80,hot=10,keys=30"), number=6000)]
    assert 4680 < sum(number < 10 for number in found) < 4920
    counts = np.bincount(found, minlength=30)
    assert abs(chi_square(counts[:10], np.full(10, counts[:10].sum() / 10))) < 4
    assert abs(chi_square(counts[10:], np.full(20, counts[10:].sum() / 20))) < 4


def test_regions_use_their_homes_and_some_of_the_others():
    asked = workload("local:remote=20,keys=100")
    for place, region in enumerate(REGIONS):
        homes = Counter(c.shared // 100 for c in first(asked, region, 3000))
        assert 2280 < homes[place] < 2520
        others = [homes[other] for other in range(3) if other != place]
        assert abs(others[0] - others[1]) < 120
    assert {c.shared // 100 for c in first(workload("local:remote=0,keys=100"), "JP")} == {2}


def test_homes_drift_with_intended_starts_around_the_circle():
    asked = workload("local:remote=0,keys=100,drift=50")
    at = {}
    for second in (0, 1, 2, 5):
        commands = asked.commands("JP", starts=[second * 1_000_000] * 2000)
        numbers = {c.shared for c in commands}
        at[second] = numbers
    assert at[0] == set(range(200, 300))
    assert at[1] == set(range(250, 300)) | set(range(50))
    assert at[2] == set(range(100))
    assert at[5] == set(range(150, 250))


def test_one_command_is_drawn_per_start_and_no_more_are_taken():
    starts = count(0, 1000)
    commands = workload("local:drift=5").commands("VA", starts=starts)
    assert len(list(islice(commands, 10))) == 10
    assert next(starts) == 10_000


@pytest.mark.parametrize("text", ["local", "ycsb-d"])
def test_kinds_with_homes_need_the_regions(text):
    with pytest.raises(ConfigError, match=r"region VA is none of its regions \(none\)"):
        next(parse_workload(text).commands("VA"))
    with pytest.raises(ConfigError, match=r"region EU is none of its regions \(VA, CA, JP\)"):
        next(workload(text).commands("EU"))


# Zipf ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [0.01, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("keys", [1, 2, 3, 100_000, 1_000_003])
def test_zeta_is_the_sum(theta, keys):
    terms = np.arange(keys, 0, -1, dtype=np.float64) ** -theta
    assert zeta(keys, theta) == pytest.approx(float(terms.sum()), rel=1e-12)


def gray_probabilities(keys, theta):
    """What YCSB's formula gives each rank: the lengths of the intervals of u, by its inverse."""
    total = (np.arange(1, keys + 1, dtype=np.float64) ** -theta).sum()
    eta = (1 - (2 / keys) ** (1 - theta)) / (1 - (1 + 0.5**theta) / total)
    edges = np.arange(2, keys + 1) / keys
    below = (edges ** (1 - theta) - 1 + eta) / eta
    return np.concatenate(([1 / total, 0.5**theta / total], np.diff(below)))


@pytest.mark.parametrize(("keys", "theta"), [(3, 0.5), (50, 0.9), (1000, 0.99), (1000, 0.2)])
def test_ranks_follow_the_formula_of_gray(keys, theta):
    expected = gray_probabilities(keys, theta)
    assert expected.sum() == pytest.approx(1)
    draws = 100_000
    assert abs(chi_square(ranks(Gray(keys, theta), draws, keys), expected * draws)) < 4


def test_the_formula_of_gray_is_near_to_zipf():
    for theta, most in ((0.5, 0.001), (0.9, 0.007), (0.99, 0.012)):
        exact = np.arange(1, 1_000_001, dtype=np.float64) ** -theta
        exact /= exact.sum()
        formula = gray_probabilities(1_000_000, theta)
        assert formula[:2] == pytest.approx(exact[:2])
        assert np.abs(formula - exact).sum() / 2 < most


@pytest.mark.parametrize(("keys", "s"), [(3, 1.01), (50, 1.2), (1000, 2.0)])
def test_ranks_above_one_follow_the_exact_law(keys, s):
    expected = np.arange(1, keys + 1, dtype=np.float64) ** -s
    expected /= expected.sum()
    draws = 100_000
    assert abs(chi_square(ranks(Truncated(keys, s), draws, keys), expected * draws)) < 4


@pytest.mark.parametrize("source", [Gray(10, 0.9), Truncated(10, 1.5), Gray(1, 0.9), Gray(2, 0.9)])
def test_every_u_gives_a_rank_that_exists(source):
    almost_one = 1 - 2**-53
    assert source.rank(0.0) == 0
    assert 0 <= source.rank(almost_one) < 10
    assert {source.rank(u / 1000) for u in range(1000)} <= set(range(10))


def test_keys_that_grow_are_as_if_they_had_been_there():
    grown = Gray(100, 0.9)
    grown.grow(60)
    grown.grow(40)
    whole = Gray(200, 0.9)
    assert grown.keys == 200
    assert [grown.rank(u / 500) for u in range(500)] == [whole.rank(u / 500) for u in range(500)]


def test_the_most_frequent_keys_are_the_first_or_lie_scattered():
    plain = Counter(c.shared for c in first(workload("zipf:theta=0.9,keys=1000")))
    mixed = Counter(c.shared for c in first(workload("zipf:theta=0.9,keys=1000,scramble=true")))
    assert [number for number, _ in plain.most_common(3)] == [0, 1, 2]
    assert [number for number, _ in mixed.most_common(3)] == [
        rank * scatter(1000) % 1000 for rank in (0, 1, 2)
    ]


@pytest.mark.parametrize("keys", [1, 2, 3, 10, 1000, 997, 1_000_000])
def test_scattering_loses_no_key(keys):
    numbers = np.arange(keys) * scatter(keys) % keys
    assert len(np.unique(numbers)) == keys


# YCSB ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "share"), [("a", 0.5), ("b", 0.05), ("c", 0.0), ("d", 0.05)])
def test_ycsb_writes_its_share(kind, share):
    commands = first(workload(f"ycsb-{kind}"), number=10_000)
    writes = [c for c in commands if c.operation == Operation.PUT]
    assert len(writes) == pytest.approx(10_000 * share, abs=200)
    assert {len(c.argument) for c in writes} <= {1000}


def test_the_hash_is_that_of_ycsb():
    # FNV-1a of eight zero bytes, and of 1 and seven zero bytes; the first is negative in 64 bits.
    assert _hash(0) == (1 << 64) - 0xA8C7F832281A39C5
    assert _hash(1) == (1 << 64) - 0x89CD31291D2AEFA4


def test_the_zeta_of_ycsb_is_ours():
    assert zeta(10_000_000_000, 0.99) == pytest.approx(26.46902820178302, rel=1e-9)


@pytest.mark.parametrize("kind", ["a", "f"])
def test_ycsb_keys_are_those_of_its_scrambled_generator(kind):
    # Ranks beyond the first 100,000 lie evenly on the records.
    rank = np.arange(2, 100_001) / 1e10
    zeta_n = 26.46902820178302
    eta = (1 - (2 / 1e10) ** 0.01) / (1 - (1 + 0.5**0.99) / zeta_n)
    below = (rank**0.01 - 1 + eta) / eta
    head = np.concatenate(([1 / zeta_n, 0.5**0.99 / zeta_n], np.diff(below)))
    expected = np.full(1000, (1 - head.sum()) / 1000)
    np.add.at(expected, [_hash(number) % 1000 for number in range(len(head))], head)
    reads = [c.shared for c in first(workload(f"ycsb-{kind}"), number=30_000) if not c.modifies]
    found = np.bincount(reads, minlength=1000)
    assert abs(chi_square(found, expected * len(reads))) < 4
    assert found.max() / len(reads) == pytest.approx(1 / zeta_n + 0.0008, abs=0.005)


def test_ycsb_d_inserts_new_keys_and_reads_the_latest():
    streams = {region: first(workload("ycsb-d"), region, 4000) for region in REGIONS}
    inserted = [
        c.shared for stream in streams.values() for c in stream if c.operation == Operation.PUT
    ]
    assert len(set(inserted)) == len(inserted)
    assert {number % 3 for number in inserted} == {0, 1, 2}
    latest, ages = 999, Counter()
    for command in streams["VA"]:
        if command.operation == Operation.PUT:
            latest += 3
            assert command.shared == latest - 2
        else:
            ages[latest - command.shared] += 1
    assert min(ages) == 0
    assert ages.most_common(1)[0][0] == 0
    assert sum(ages.values()) / 10 < ages[0] < sum(ages.values()) / 5


def test_ycsb_d_clients_of_one_region_insert_keys_of_their_own():
    keys = [
        c.key
        for client in (0, 1, 2)
        for region in REGIONS
        for c in first(workload("ycsb-d"), region, client=client)
        if c.operation == Operation.PUT
    ]
    assert len(set(keys)) == len(keys)


def test_ycsb_f_writes_what_it_has_just_read():
    commands = first(workload("ycsb-f"), number=6000)
    for before, command in pairwise(commands):
        assert command.modifies == (command.operation == Operation.PUT)
        if command.modifies:
            assert before.operation == Operation.GET
            assert before.key == command.key
    assert sum(c.modifies for c in commands) == pytest.approx(2000, abs=120)


def test_a_read_modify_write_expects_what_was_read():
    command = next(c for c in first(workload("ycsb-f")) if c.modifies)
    told = command.expecting(b"old")
    assert (told.operation, told.key, told.shared) == (Operation.CAS, command.key, command.shared)
    assert decode_cas(told.argument).expect == b"old"
    assert decode_cas(told.argument).value == command.argument
    assert decode_cas(command.expecting(None).argument).expect is False


# Texts --------------------------------------------------------------------------------------------

OWN = '''
from dataclasses import dataclass

from epaxos.workload import Workload, bounded


@dataclass(frozen=True, kw_only=True)
class Sensors(Workload):
    """Each region writes its own sensors and sometimes reads one of any region."""

    sensors: int = bounded(100, 1, 10_000)
    name: str = "s"

    def draw(self, client):
        while True:
            number = client.random.randrange(self.sensors)
            if client.random.random() < self.puts:
                yield client.put(f"{client.region}-{number}".encode())
            else:
                yield client.get(b"any-%d" % number, number)


class Plain(Workload):
    def draw(self, client):
        yield client.get(b"x")


@dataclass(frozen=True, kw_only=True)
class Empty(Workload):
    pass


@dataclass(frozen=True, kw_only=True)
class Hiding(Plain):
    commands: int = 3


NUMBER = 7
'''


PAGE = (Path(__file__).parents[2] / "docs" / "workloads.md").read_text(encoding="utf-8")


def test_the_lines_of_the_page_mean_something():
    table = PAGE[PAGE.index("| write | asked for |") : PAGE.index("All have `puts`")]
    lines = [
        line
        for row in table.splitlines()[2:]
        for line in re.findall("`([^`]+)`", row.split("|")[1] if row else "")
    ]
    assert len(lines) == 12
    for line in lines:
        assert len(first(workload(line), number=5)) == 5
    assert {line.partition(":")[0] for line in lines} == set(workload_names())


def test_the_example_of_the_page_works(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "shop_of_the_page.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    commands = first(workload("shop_of_the_page:Carts,carts=20,puts=0.3"))
    assert {c.shared for c in commands} == set(range(20))
    assert 500 < sum(c.operation == Operation.PUT for c in commands) < 700


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_workload.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "own_workload"


def test_a_workload_of_ones_own(own):
    text = f"{own}:Sensors,sensors=3,puts=0.5"
    asked = workload(text)
    assert str(asked) == text
    assert workload(str(asked)) == asked
    commands = first(asked)
    assert {c.key for c in commands if c.operation == Operation.PUT} == {
        b"VA-0",
        b"VA-1",
        b"VA-2",
    }
    assert {c.shared for c in commands} == {OWN_KEY, 0, 1, 2}
    assert str(workload(f"{own}:Sensors")) == f"{own}:Sensors"


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (":Sensors,sensors=0", "sensors = 0 must be between 1 and 10000"),
        (":Sensors,sensor=1", "has no setting 'sensor'; its settings are sensors, name, puts, "),
        (":Sensor", "the module own_workload has no Sensor"),
        (":Hiding", "call its setting 'commands' something else"),
        (":NUMBER", "is not a class that inherits from epaxos.workload.Workload"),
        (":Plain", "write @dataclass"),
        (":Empty", r"has no method draw\(self, client\)"),
    ],
)
def test_a_wrong_workload_of_ones_own_is_explained(own, rest, said):
    with pytest.raises(ConfigError, match=said):
        workload(own + rest)


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="no_such_module"):
        workload("no_such_module:Class")


def test_an_installed_workload_has_a_name(own, monkeypatch):
    from importlib import import_module

    from epaxos.workload import text

    known = {"sensors": import_module(own).Sensors}
    monkeypatch.setattr(text, "load_entry", lambda group, name: known.get(name))
    monkeypatch.setattr(text, "entry_names", lambda group: list(known))
    assert str(workload("sensors:sensors=5")) == f"{own}:Sensors,sensors=5"
    assert workload_names()[-1] == "sensors"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("", "unknown workload ''; write one of conflict, zipf, ycsb-a,"),
        ("golf", "unknown workload 'golf'"),
        ("ycsb-e", "unknown workload 'ycsb-e'"),
        ("conflict", "needs percent: write conflict:2"),
        ("conflict:x", "percent = 'x' is not a number"),
        ("conflict:101", "percent = 101 must be between 0 and 100"),
        ("conflict:nan", "percent = 'nan' is not a number"),
        ("conflict:inf", "percent = 'inf' is not a number"),
        ("conflict:2,pool=0", "pool = 0 must be between 1 and 1000000"),
        ("conflict:2,pool=1.5", "pool = '1.5' is not a whole number"),
        ("conflict:2,puts=2", "puts = 2 must be between 0 and 1"),
        ("conflict:2,3", "write '3' as NAME=VALUE; its settings are percent, pool, puts,"),
        ("conflict:2,percent=3", "percent is set twice"),
        ("conflict:2,seed=3", "has no setting 'seed'"),
        ("conflict:2,value_size=-1", "value_size = -1 must be between 0 and 1,000,000"),
        ("conflict:2,value_size=big", "write 16, uniform"),
        ("conflict:2,value_size=uniform(9,1)", r"value_size = uniform\(9,1\) must"),
        ("conflict:2,value_size=normal(9,-1)", r"value_size = normal\(9,-1\) must"),
        ("conflict:2,value_size=uniform(1,2,3)", "is not a size in bytes"),
        ("zipf", "write theta=0.9 .* or s=1.2"),
        ("zipf:theta=0.9,s=1.2", "one of the two"),
        ("zipf:theta=1", "theta = 1 must lie between 0 and 1, both excluded; .* write s=1.2"),
        ("zipf:s=1", "s = 1 must be above 1"),
        ("zipf:s=0.99", "write theta=0.9"),
        ("zipf:s=1.2,keys=1000001", "keys = 1000001 must be at most 1000000 with s"),
        ("zipf:theta=0.9,scramble=yes", "scramble = 'yes' must be true or false"),
        ("hot:80,hot=2000", "hot = 2000 must be below keys = 1000"),
        ("local:remote=101", "remote = 101"),
        ("local:drift=-1", "drift = -1"),
    ],
)
def test_what_is_wrong_is_named(wrong, said):
    with pytest.raises(ConfigError, match=said):
        workload(wrong)
