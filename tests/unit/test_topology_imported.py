"""Matrices of others: our own CSV, fantoch's folder, swiftpaxos' latency.conf."""

import pytest

from topology import TopologyError, find, to_csv

TABLE = "from,to,rtt_ms\na,b,10\nb,a,12\na,c,20\nb,c,30\n"


def rows(topology):
    """Its table, as numbers."""
    return [
        (a, b, *map(float, numbers))
        for a, b, *numbers in (row.split(",") for row in to_csv(topology).splitlines()[1:])
    ]


@pytest.mark.parametrize("spec", ["aws-5-2020", "equidistant:3,80", "aws:us-east-1,eu-west-1"])
def test_our_own_table_reads_back(tmp_path, spec):
    path = tmp_path / "own.csv"
    written = find(spec)
    path.write_text(to_csv(written), encoding="utf-8-sig")
    found = find(str(path))
    assert [region.name for region in found.regions] == [region.name for region in written.regions]
    for ours, theirs in zip(rows(found), rows(written), strict=True):
        assert ours[:2] == theirs[:2]
        assert ours[2:] == pytest.approx(theirs[2:], abs=0.0015)  # a table has three digits
    assert find(found.name) == found


def test_an_asymmetric_table_reads_back(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text(
        "[regions.a]\n[regions.b]\n[links.a-b]\nrtt_ms = 100\nasymmetry_ms = 20\nloss = 0.01\n"
    )
    path = tmp_path / "own.csv"
    path.write_text(to_csv(find(str(own))))
    found = find(str(path))
    assert (found.mean_one_way_us(0, 1), found.mean_one_way_us(1, 0)) == (70_000, 30_000)
    assert found.loss(1, 0) == 0.01
    assert to_csv(found) == path.read_text()


def test_directions_that_differ_have_a_mean_and_a_note(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(TABLE)
    found = find(str(path))
    assert found.rtt_ms(0, 1) == found.rtt_ms(1, 0) == 11
    assert found.rtt_ms(2, 0) == 20  # one direction is enough
    assert any("a to b: 10 ms, and back 12 ms" in note for note in found.notes)
    assert any("round trips" in note for note in found.notes)
    assert [region.name for region in find(f"{path}:c,a").regions] == ["c", "a"]


def test_a_folder_of_fantoch(tmp_path):
    (tmp_path / "eu.dat").write_text("0.1/0.2/0.3/0.0:eu\n70.4/70.5/73.6/0.1:us\n9/9/9/9:mars\n")
    (tmp_path / "us.dat").write_text("0.2/0.2/0.7/0.0:us\n70.4/70.7/70.9/0.1:eu\n")
    found = find(str(tmp_path))
    assert [region.name for region in found.regions] == ["eu", "us"]
    assert found.rtt_ms(0, 1) == pytest.approx(70.6)  # the mean of ping, not its half
    assert found.mean_one_way_us(0, 1) == 35_300
    assert found.jitter(0, 1).mean_us == pytest.approx(50, rel=0.1)


def test_a_latency_conf_of_swiftpaxos(tmp_path):
    path = tmp_path / "latency.conf"
    path.write_text(
        "0.0.0.1 0.0.0.1 0ms\n0.0.0.1 0.0.0.2 128ms\n0.0.0.2 0.0.0.3 1.5s\n\n0.0.0.3 0.0.0.1 90ms\n"
        "0.0.0.2 0.0.0.1 130ms\n"
    )
    found = find(str(path))
    assert found.rtt_ms(0, 1) == found.rtt_ms(1, 0) == 130  # the last line, both ways
    assert found.mean_one_way_us(0, 1) == 65_000  # swiftpaxos waits for a half
    assert found.rtt_ms(1, 2) == 1500


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.csv", "", "line 1: there is no column 'from'"),
        ("x.csv", "from,to,rtt_ms,hops\n", "line 1: column 'hops'"),
        ("x.csv", "from,to,rtt_ms\na,b\n", "line 2: 2 fields instead of 3"),
        ("x.csv", "from,to,rtt_ms\na,b,+1_0\n", "line 2: rtt_ms = '+1_0'"),
        ("x.csv", "from,to,rtt_ms\na,b,nan\n", "line 2"),
        ("x.csv", "from,to,rtt_ms\na,b," + "9" * 5000 + "\n", "line 2"),
        ("x.csv", "from,to,rtt_ms\na,b,1\na,b,2\n", "line 3: a to b stands there before"),
        ("x.csv", "from,to,rtt_ms\na,b,1\nb,c,2\n", "how far a is from c"),
        ("x.csv", "from,to,rtt_ms,loss\na,b,1,2\n", "line 2: loss = 2"),
        ("x.csv", "from,to,rtt_ms,one_way_ms\na,b,10,30\n", "line 2: one_way_ms is longer"),
        ("x.csv", "from,to,rtt_ms,one_way_ms\na,b,10,7\nb,a,10,7\n", "line 3: one_way_ms there"),
        ("x.csv", "from,to,rtt_ms\n,b,1\n", "line 2: the name of a region is missing"),
        ("x.csv", "from,to,rtt_ms\nus/east,b,1\n", "'us/east' has a '/'"),
        ("x.csv", b"from,to\xff", "not UTF-8"),
        ("x.csv", "from,to,rtt_ms\na,b" + "b" * 200_000 + ",1\n", "line 2: field larger than"),
        ("x.csv", "from,to,rtt_ms\na,a,1\n", "no line joins two regions"),
        ("x.conf", "a b 60001s\n", "line 1"),
        ("x.conf", "a b 61s\n", "line 1: 61000 ms is over 60000 ms"),
        ("x.conf", "a b\n", "line 1: 'a b' is not FROM TO 128ms"),
        ("x.conf", "a b 12parsecs\n", "line 1: '12parsecs' is not a time"),
        ("x.conf", "uniform 100ms\n", "equidistant:5,100"),
        ("x.dat", "", "REGION.dat"),
        ("d/a.dat", "1/2:b\n", "a.dat, line 1: '1/2:b' is not ping's"),
        ("d/a.dat", "3/2/4/1:b\n", "a.dat, line 1: the mean 2"),
        ("d/a.dat", "1/2/x/1:b\n", "a.dat, line 1: 'x'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_and_line(tmp_path, name, text, words):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TopologyError) as refused:
        find(str(path.parent if name.endswith("/a.dat") else path))
    if name != "x.dat":
        assert words in str(refused.value)
    assert len(str(refused.value)) < 400


def test_more_regions_than_a_topology_has_must_be_picked(tmp_path):
    path = tmp_path / "x.csv"
    rows = [f"r{i},r{j},5\n" for i in range(20) for j in range(i)]
    path.write_text("from,to,rtt_ms\n" + "".join(rows))
    with pytest.raises(TopologyError, match="name some, like"):
        find(str(path))
    assert find(f"{path}:r3,r19").n == 2
    with pytest.raises(TopologyError, match="no region 'r33'"):
        find(f"{path}:r3,r33")
    with pytest.raises(TopologyError, match="named twice"):
        find(f"{path}:r3,r3")
