"""A replica that has forgotten is refused by real processes in whatever company it starts: from an
older copy that was started itself, and by a peer that was down."""

import json
import shutil
import time

from tests.runtime.processes import ProcessCluster

STARTS = 2


def boot_of(directory):
    return json.loads((directory / "identity.json").read_bytes())["boot"]


def assert_stays_refused(cluster, index):
    """Every further start ends with the sentence of the first, before a counter moves."""
    directory = cluster.path / f"data{index}"
    boot = boot_of(directory)
    for _ in range(STARTS):
        code, line = cluster.start(index).ended()
        assert code == 3
        assert "refused before" in line
        assert "lost disk" in line
    assert boot_of(directory) == boot


def test_an_older_copy_is_refused_also_after_many_starts_in_bad_company(tmp_path):
    """The copy was started, alone, until its counter had passed what its peers remember."""
    with ProcessCluster(tmp_path, 3) as c:
        c.start_all()
        assert c[2].stop() == 0
        shutil.copytree(tmp_path / "data2", tmp_path / "copy")
        c.start(2).wait_ready()
        assert c[0].put("x", b"1") == 200
        for replica in (c[0], c[1], c[2]):
            replica.kill()
        shutil.rmtree(tmp_path / "data2")
        (tmp_path / "copy").rename(tmp_path / "data2")
        for _ in range(2):
            c.start(2)
            while not any("log replayed" in line for line in [*c[2].log]):
                assert c[2].process.poll() is None
                time.sleep(0.05)
            c[2].kill()
        assert boot_of(tmp_path / "data2") > 2
        c.start(0, 1)
        assert c.start(2).ended()[0] == 3
        assert_stays_refused(c, 2)
        assert c[0].get("x") == b"1"


def test_the_first_peer_that_remembers_judges_whenever_it_comes(tmp_path):
    """B's memory of its peers is gone, so it lets C in; A, who was down, does not."""
    with ProcessCluster(tmp_path, 3) as c:
        c.start_all()
        for index in range(3):
            c[index].kill()
        shutil.rmtree(tmp_path / "data2")
        (tmp_path / "data1" / "peers.json").unlink()
        c.start(1, 2)
        c[2].wait_ready()
        c.start(0)
        code, line = c[2].ended()
        assert code == 3
        assert "lost disk" in line
        assert_stays_refused(c, 2)
