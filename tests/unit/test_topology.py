"""Topologies: what can be asked for, what figures come out, what is refused and how."""

import json
import random
from importlib.resources import files
from statistics import fmean

import pytest

import topology
from topology import TopologyError, best_leader, find, predict_epaxos, predict_leader, worst_leader
from topology.delay import NO_JITTER, measured_jitter, mild_jitter
from topology.predict import quorum_sizes

EXPECTED = json.loads(
    files("topology").joinpath("data", "expected.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("case", list(EXPECTED))
def test_prediction_agrees_with_the_oracle(case):
    # The oracle is rounded to 0.1 ms and takes the row's ping where both directions have one; the
    # matrix takes their mean, which lies up to 0.01 ms beside it.
    name, _, size = case.partition(" n=")
    found = find(name, int(size))
    expected = EXPECTED[case]
    assert quorum_sizes(found.n) == (expected["fast_quorum"], expected["majority"])
    assert found.regions[best_leader(found)].name == expected["best_leader_by_mean"]
    assert found.regions[worst_leader(found)].name == expected["worst_leader_by_mean"]
    for each in predict_epaxos(found):
        site = expected["sites"][found.regions[each.region].name]
        assert round(each.fast_ms, 1) == site["epaxos_fast"]
        assert round(each.slow_ms, 1) == pytest.approx(site["epaxos_slow"], abs=0.06)
    for leader in range(found.n):
        column = f"mp_leader_{found.regions[leader].name}"
        for each in predict_leader(found, leader):
            site = expected["sites"][found.regions[each.region].name]
            assert each.fast_ms == pytest.approx(site[column], abs=0.06)
            assert each.slow_ms == each.fast_ms
            assert each.leader == leader


def test_prediction_names_the_quorum_and_adds_syncs():
    found = find("aws-5-2020")
    virginia = predict_epaxos(found, added_ms=0.6)[found.index("VA")]
    assert [found.regions[i].title for i in virginia.quorum] == [
        "Virginia",
        "California",
        "Ireland",
    ]
    assert virginia.fast_ms == pytest.approx(found.rtt_ms(0, found.index("EU")) + 0.6)
    assert virginia.slow_ms == pytest.approx(2 * found.rtt_ms(0, found.index("EU")) + 0.6)


def test_prediction_moves_to_the_nearest_living_quorum():
    found = find("aws-5-2020")
    alive = [i for i in range(5) if i != found.index("CA")]
    predictions = predict_epaxos(found, alive)
    assert [each.region for each in predictions] == alive
    assert predictions[0].fast_ms == found.rtt_ms(found.index("VA"), found.index("OR"))
    assert found.index("CA") not in predictions[0].quorum
    assert best_leader(found, alive) in alive


def test_prediction_without_a_fast_quorum_is_the_slow_path():
    found = find("equidistant:7,100")
    assert quorum_sizes(7) == (5, 4)
    assert [each.fast_ms for each in predict_epaxos(found)] == [100.0] * 7
    assert [each.fast_ms for each in predict_epaxos(found, [0, 1, 2, 3])] == [200.0] * 4
    with pytest.raises(TopologyError, match="3 living replicas are fewer than the quorum of 4"):
        predict_epaxos(found, [0, 1, 2])
    with pytest.raises(TopologyError, match="majority must live"):
        predict_leader(found, 5, [0, 1, 2, 3])


@pytest.mark.parametrize("n", range(1, 10))
def test_every_size_has_a_prediction(n):
    found = find(f"equidistant:{n},10")
    fast = 0.0 if n == 1 else 10.0
    assert [each.fast_ms for each in predict_epaxos(found)] == [fast] * n
    assert [each.slow_ms for each in predict_epaxos(found)] == [2 * fast] * n
    assert predict_leader(found, 0)[0].fast_ms == fast


@pytest.mark.parametrize("name", [each for each in topology.names() if ":" not in each])
def test_every_named_topology_is_complete(name):
    found = find(name)
    assert 3 <= found.n <= 9
    assert found.title
    assert found.source
    assert len({region.title for region in found.regions}) == found.n
    for i in range(found.n):
        assert found.one_way_us(i, i) == 0
        for j in range(found.n):
            if i != j:
                assert found.rtt_ms(i, j) == found.rtt_ms(j, i) > 0
                assert found.one_way_us(i, j) <= found.mean_one_way_us(i, j)


def test_regions_are_found_by_name_title_and_letter():
    found = find("aws-5-2020")
    assert [region.name for region in found.regions] == ["VA", "CA", "OR", "EU", "JP"]
    assert found.index("ireland") == found.index("EU") == found.index("D") == 3
    with pytest.raises(TopologyError, match=r"no region 'Irland' \(did you mean Ireland\?\)"):
        found.index("Irland")


def test_three_sites_are_those_of_the_source():
    assert [region.name for region in find("aws-5-2020", 3).regions] == ["CA", "VA", "EU"]
    assert [region.name for region in find("sosp13-figure4", 3).regions] == ["CA", "VA", "EU"]


def test_a_guess_is_said():
    assert find("sosp13-figure4").notes
    assert find("aws-5-2020").notes == ()


def test_subset_keeps_the_figures_in_the_order_asked():
    found = find("aws-5-2020")
    part = found.subset(["Tokyo", "VA"])
    assert [region.name for region in part.regions] == ["JP", "VA"]
    assert part.rtt_ms(0, 1) == found.rtt_ms(4, 0)
    assert part.jitter(1, 0) == found.jitter(0, 4)
    with pytest.raises(TopologyError, match="named twice"):
        found.subset(["VA", "Virginia"])


@pytest.mark.parametrize("cloud", topology.clouds())
def test_regions_of_a_cloud_can_be_picked(cloud):
    chosen = [region.name for region in topology.cloud_regions(cloud)[:3]]
    found = find(f"{cloud}:{','.join(chosen)}")
    assert [region.name for region in found.regions] == chosen


def test_shapes():
    far = find("one-far:4,20,200")
    assert far.rtt_ms(0, 1) == 20
    assert far.rtt_ms(0, 3) == far.rtt_ms(3, 2) == 200
    assert find("lan").n == 5
    assert find("lan:3").rtt_ms(0, 1) == 0.2
    assert find("lan", 7).n == 7
    assert find("equidistant:3,80", 2).n == 2


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("aws-5-2021", "did you mean aws-5-2020?"),
        ("aws", "name the regions, like aws:"),
        ("aws:us-east1", "did you mean us-east-1?"),
        ("gcp:us-west1,us-west1", "named twice"),
        ("lan:x", "write lan like lan or lan:5"),
        ("equidistant:3", "write equidistant like equidistant:5,100"),
        ("one-far:3,20,-1", "write one-far like"),
        ("equidistant:3,nan", "write equidistant like"),
        ("lan:inf", "write lan like"),
        ("lan:17", "write lan like"),
        ("azure:westindia,jioindiawest", "nobody measured westindia to jioindiawest"),
        ("nowhere.toml", "topology nowhere.toml: No such file"),
    ],
)
def test_what_cannot_be_found_is_refused_with_the_fix(spec, words):
    with pytest.raises(TopologyError) as refused:
        find(spec)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_more_replicas_than_regions_are_refused():
    with pytest.raises(TopologyError, match="has 5 regions, not 6"):
        find("aws-5-2020", 6)


def test_floor_and_jitter_together_have_the_mean_of_the_matrix():
    found = find("aws-5-2020")
    rng = random.Random(1)
    for i, j in ((0, 1), (0, 2), (3, 4)):
        samples = [found.one_way_us(i, j) + found.jitter(i, j).sample(rng) for _ in range(40_000)]
        assert fmean(samples) == pytest.approx(found.rtt_ms(i, j) * 500, rel=0.005)
        assert min(samples) >= found.one_way_us(i, j)


def test_jitter_never_exceeds_what_was_measured():
    jitter = measured_jitter(mean_ms=100.4, least_ms=100.0, deviation_ms=1.0, most_ms=110.0)
    samples = [jitter.sample(rng) for rng in [random.Random(7)] for _ in range(20_000)]
    assert max(samples) <= 5_000
    assert fmean(samples) == pytest.approx(jitter.mean_us, rel=0.1)
    assert NO_JITTER.sample(random.Random(0)) == 0
    assert mild_jitter(100).mean_us == pytest.approx(100, rel=0.04)


def test_jitter_follows_from_the_seed():
    jitter = find("aws-5-2020").jitter(0, 1)
    first, second = (
        [jitter.sample(rng) for _ in range(100)] for rng in (random.Random(3), random.Random(3))
    )
    assert first == second


OWN = """
title = "Three offices"

[regions.berlin]
lat = 52.52
lon = 13.40

[regions.tokyo]
title = "Tokyo"

[regions.sao-paulo]

[links.berlin-tokyo]
rtt_ms = 220
jitter_ms = 0.4
loss = 0.01
asymmetry_ms = 5

[links.sao-paulo-berlin]
rtt_ms = 190.5

[links.tokyo-sao-paulo]
rtt_ms = 260
"""


def read(tmp_path, text):
    path = tmp_path / "my.toml"
    path.write_text(text, encoding="utf-8")
    return find(str(path))


def test_own_file(tmp_path):
    found = read(tmp_path, OWN)
    assert found.title == "Three offices"
    assert [region.title for region in found.regions] == ["berlin", "Tokyo", "sao-paulo"]
    assert found.rtt_ms(0, 2) == found.rtt_ms(2, 0) == 190.5
    assert found.mean_one_way_us(0, 1) == 115_000
    assert found.mean_one_way_us(1, 0) == 105_000
    assert found.loss(0, 1) == found.loss(1, 0) == 0.01
    assert found.jitter(0, 1).mean_us == pytest.approx(400, rel=0.04)
    assert found.jitter(0, 2).mean_us > 0


def test_own_file_may_violate_the_triangle_inequality(tmp_path):
    found = read(tmp_path, OWN.replace("rtt_ms = 260", "rtt_ms = 5000"))
    assert found.rtt_ms(1, 2) == 5000


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "rtt_ms = 220",
            'rtt_ms = "fast"',
            '[links.berlin-tokyo] rtt_ms = "fast" is not a number; write for example rtt_ms = 220',
        ),
        ("rtt_ms = 220\n", "", "[links.berlin-tokyo] lacks rtt_ms"),
        ("rtt_ms = 220", "rtt_ms = -1", "rtt_ms = -1 is not between 0 and 60000"),
        ("rtt_ms = 220", "rtt_ms = nan", "rtt_ms = nan is not between"),
        ("loss = 0.01", "loss = 2", "loss = 2 is not between 0 and 1"),
        ("loss = 0.01", "lost = 0.01", "unknown key 'lost' (did you mean loss?)"),
        ("asymmetry_ms = 5", "asymmetry_ms = 111", "is over half of rtt_ms"),
        ("lat = 52.52", "lat = 100", "[regions.berlin] lat = 100 is not between -90 and 90"),
        ("lon = 13.40", "", "[regions.berlin] lacks lon"),
        ("[links.tokyo-sao-paulo]", "[links.tokyo-rio]", "[links.tokyo-rio] does not join two"),
        ("[links.tokyo-sao-paulo]\nrtt_ms = 260", "", "there is no [links.tokyo-sao-paulo]"),
        ('title = "Tokyo"', "title = 7", "title = 7 is not a text"),
        ('title = "Three offices"', "titel = 'x'", "unknown key 'titel' (did you mean title?)"),
        ('title = "Three offices"', "title =", "not TOML"),
        (
            "[links.tokyo-sao-paulo]",
            "[links.tokyo-berlin]\nrtt_ms = 1\n[links.tokyo-sao-paulo]",
            "[links.tokyo-berlin] and [links.berlin-tokyo] join the same two regions",
        ),
    ],
)
def test_own_file_is_refused_with_file_key_and_fix(tmp_path, old, new, words):
    assert old in OWN
    with pytest.raises(TopologyError) as refused:
        read(tmp_path, OWN.replace(old, new))
    assert words in str(refused.value)
    assert "my.toml" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "spec", ["aws-5-2020", "one-far:3,20,200", "lan:1", "azure:uksouth,norwayeast"]
)
def test_written_as_toml_it_reads_back(tmp_path, spec):
    found = find(spec)
    again = read(tmp_path, topology.to_toml(found))
    assert again.regions == found.regions
    for i in range(found.n):
        for j in range(found.n):
            assert again.rtt_ms(i, j) == pytest.approx(found.rtt_ms(i, j), abs=0.001) or i == j
            assert again.one_way_us(i, j) == pytest.approx(found.one_way_us(i, j), rel=0.01)


def test_written_as_toml_asymmetry_survives(tmp_path):
    found = read(tmp_path, OWN)
    again = read(tmp_path, topology.to_toml(found))
    assert again.mean_one_way_us(0, 1) == 115_000
    assert again.losses == found.losses


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    assert read(tmp_path, "\ufeff" + OWN).title == "Three offices"


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("us/east", "'/'"),
        ("x" * 300, "1 to 64 bytes"),
        ("-x", "begins with '-'"),
        ("..", "begins with '.'"),
        ("a,b", "','"),
        ("a ", "blank"),
        ("TWO", "capital letters"),
    ],
)
def test_a_region_is_called_what_a_file_can_be(tmp_path, name, word):
    path = tmp_path / "own.toml"
    path.write_text(f'[regions.two]\n[regions."{name}"]\n[links."two-{name}"]\nrtt_ms = 1\n')
    with pytest.raises(TopologyError, match=r"own\.toml") as raised:
        find(str(path))
    assert word in str(raised.value)
    assert len(str(raised.value)) < 400


def test_a_name_comes_before_another_regions_title_and_letter(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        '[regions.x]\ntitle = "2"\n[regions.2]\ntitle = "a"\n[regions.B]\n'
        "[links.x-2]\nrtt_ms = 1\n[links.x-B]\nrtt_ms = 2\n[links.2-B]\nrtt_ms = 3\n"
    )
    found = find(str(path))
    assert [found.index(each) for each in ("2", "B", "a", "C")] == [1, 2, 1, 2]
    assert [r.name for r in found.subset(["2", "B"]).regions] == ["2", "B"]


def test_two_regions_have_two_titles(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        '[regions.x]\ntitle = "Bonn"\n[regions.y]\ntitle = "bonn"\n[links.x-y]\nrtt_ms = 1\n'
    )
    with pytest.raises(TopologyError, match="'x' and 'y' have the same title, 'bonn'; tell them"):
        find(str(path))
    assert find("azure:australiacentral,australiacentral2").n == 2


def test_a_title_has_a_bound(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(f'[regions.x]\ntitle = "{"a" * 300}"\n')
    with pytest.raises(TopologyError, match="title of region 'x' has more than 120 bytes"):
        find(str(path))


OFFICES = """
{head}
[regions.a]
{region}
[regions.b]
[links.a-b]
rtt_ms = {rtt_ms}
"""


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"rtt_ms": "9" * 400}, "is not between"),
        ({"rtt_ms": "9" * 5000}, "not TOML"),
        ({"head": "source = " + "[" * 5000 + "]" * 5000}, "not TOML"),
        ({"region": 'title = "a\\u001b[31m"'}, "signs that do not print"),
        ({"region": 'title = " "'}, "is empty"),
        ({"head": 'title = "x\\ntouch pwned"'}, "signs that do not print"),
    ],
)
def test_odd_numbers_depths_and_titles_of_a_file_are_refused(tmp_path, parts, words):
    path = tmp_path / "odd.toml"
    path.write_text(OFFICES.format(**{"head": "", "region": "", "rtt_ms": "3"} | parts))
    with pytest.raises(TopologyError, match=words):
        find(str(path))


def test_netem_has_a_variable_per_region_and_one_line_per_comment(tmp_path):
    path = tmp_path / "a\ntouch pwned.csv"
    path.write_text("from,to,rtt_ms\n東京,大阪,3\n東京,x,4\n大阪,x,5\n")
    script = topology.to_netem(find(str(path)))
    assert "\ntouch" not in script
    assert "ADDR____1" in script
    assert "ADDR____2" in script
