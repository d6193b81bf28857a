"""A load second by second: written down as it goes, drawn so that nothing stands on anything."""

import re
from itertools import combinations
from xml.etree import ElementTree

import pytest

from bench.loadtest.counts import LoadCounts, decode
from bench.loadtest.seconds import SECONDS, Second, SecondsFile, read_seconds
from bench.reports.seconds import draw_seconds
from epaxos.percentile import bucket

REGIONS = ("Virginia", "California", "Oregon", "Ireland", "Tokyo")
CHARACTER_PX = 7.0
"""Of a 12 px sans-serif, at most, on average over a label."""


def counted(at, region, *answers_us, failed=0):
    found = LoadCounts()
    second = found.second(at, region)
    for us in answers_us:
        second.answer[bucket(us)] += 1
    second.failed += failed
    return found


def test_processes_add_up_and_a_second_is_written_once(tmp_path):
    total, kept = LoadCounts(), SecondsFile(tmp_path / SECONDS)
    kept.write([], anew=True)
    total.add(decode(counted(100, "Tokyo", 10_000, 10_000).encode()))
    total.add(decode(counted(100, "Tokyo", 200_000, 200_000, failed=1).encode()))
    total.add(counted(103, "Tokyo", 1000))
    kept.write(kept.due(total.seconds, 102))
    assert set(total.seconds) == {(103, "Tokyo")}
    kept.write(kept.due(total.seconds))
    assert total.seconds == {}
    first, last = read_seconds(tmp_path / SECONDS)
    assert first == Second(0, "Tokyo", 4, 1, pytest.approx(10, rel=5e-4), first.p95_ms)
    assert first.p95_ms == pytest.approx(200, rel=5e-4)
    assert last == Second(3, "Tokyo", 1, 0, 1.0, 1.0)


def test_nothing_is_kept_of_a_second_that_is_over(tmp_path):
    total, kept = LoadCounts(), SecondsFile(tmp_path / SECONDS)
    kept.write([], anew=True)
    for at in range(3000):
        total.add(counted(at, "Tokyo", 1000 + at))
        kept.write(kept.due(total.seconds, at - 5))
        assert len(total.seconds) <= 6
    assert len(read_seconds(tmp_path / SECONDS)) == 2994


def test_a_new_run_begins_anew_and_without_a_file_there_is_nothing(tmp_path):
    assert read_seconds(tmp_path / SECONDS) == []
    for _ in range(2):
        kept = SecondsFile(tmp_path / SECONDS)
        kept.write([], anew=True)
        kept.write(kept.due(counted(7, "Tokyo", failed=2).seconds))
    assert read_seconds(tmp_path / SECONDS) == [Second(0, "Tokyo", 0, 2, None, None)]


def load_with_a_death(length_s, dead_from_s, slow_ms=70.0):
    """The second region dies; the others go on, each slower than the one before."""
    return [
        Second(at, region, 20 + at % 7, 0, slow_ms * (1 + n), slow_ms * (1 + n) * 1.3)
        if n != 1 or at < dead_from_s
        else Second(at, region, 0, 20, None, None)
        for at in range(length_s)
        for n, region in enumerate(REGIONS)
    ]


def elements(picture, name):
    return [each for each in ElementTree.fromstring(str(picture)).iter() if each.tag == name]


def box(label):
    """Left, top, right, bottom of a text."""
    x, y = float(label.get("x")), float(label.get("y"))
    wide = len(label.text) * CHARACTER_PX
    left = {"end": x - wide, "middle": x - wide / 2}.get(label.get("text-anchor"), x)
    return left, y - 11, left + wide, y + 3


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("slow_ms", [0.05, 9.0, 70.0, 2500.0])
@pytest.mark.parametrize("length_s", [4, 27, 61, 900, 40_000])
def test_no_label_stands_on_another_or_on_a_line(length_s, slow_ms):
    seconds = load_with_a_death(length_s, length_s // 2, slow_ms)
    picture = draw_seconds(seconds, REGIONS)
    wide, high = map(float, ElementTree.fromstring(str(picture)).get("viewBox").split()[2:])
    labels = [(each.text, box(each)) for each in elements(picture, "text")]
    assert len(labels) > 12
    for (one, a), (other, b) in combinations(labels, 2):
        assert not overlap(a, b), (one, other)
    grid = [
        tuple(float(each.get(name)) for name in ("x1", "y1", "x2", "y2"))
        for each in elements(picture, "line")
    ]
    points = [
        tuple(map(float, pair.split(",")))
        for each in elements(picture, "polyline")
        for pair in each.get("points").split()
    ]
    for text, (left, top, right, bottom) in labels:
        assert left >= 0, text
        assert (right <= wide, bottom <= high) == (True, True), text
        for x1, y, x2, _ in grid:
            assert not overlap((left, top, right, bottom), (x1, y, x2, y + 0.1)), text
        assert not any(left < x < right and top < y < bottom for x, y in points), text
    assert len(points) <= 3 * 400 * len(REGIONS)


def test_a_region_that_died_has_no_latency_and_zero_answers():
    picture = draw_seconds(load_with_a_death(40, 20), REGIONS)
    curves = [each.get("points").split() for each in elements(picture, "polyline")]
    assert len(curves) == 3 * len(REGIONS)
    answers, latency = curves[1], curves[len(REGIONS) + 1]
    assert len(answers) == 38  # the first and the last second are no whole ones
    assert len(latency) == 19
    assert len({point.split(",")[1] for point in answers[19:]}) == 1
    assert not re.search("nan|inf", str(picture))


def test_less_than_two_whole_seconds_are_no_picture():
    assert draw_seconds([], REGIONS) == ""
    assert draw_seconds(load_with_a_death(3, 1), REGIONS) == ""
    assert draw_seconds(load_with_a_death(4, 1), REGIONS) != ""
