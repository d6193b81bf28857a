"""The report is one file that needs no network and says what the summary says."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.reports.comparison import render, write_report
from bench.reports.worldmap import HEIGHT, WIDTH, land_path, project, way_path

SUMMARY = Path(__file__).parent.parent / "data" / "summary.json"


@pytest.fixture(scope="module")
def summary():
    return json.loads(SUMMARY.read_text())


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []
        self.links = []
        self.seen = set()

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        self.links += [v for k, v in attributes if k in ("src", "href")]
        if tag not in ("meta", "input", "rect", "line", "path", "circle", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_the_page_is_self_contained(summary, tmp_path):
    path = write_report(tmp_path, summary)
    page = path.read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.links == []
    assert "http://" not in page.replace(summary["manifest"]["command_line"], "")
    assert {"svg", "table", "style", "script"} <= tags.seen


def test_every_median_is_shown(summary):
    page = render(summary)
    for phase in summary["phases"]:
        for cell in phase["cells"]:
            assert f"{cell['answer']['p50']:.1f}" in page
            assert f"{cell['optimum']['fast_ms']:.1f}" in page


def test_the_verdict_and_what_it_rests_on_are_shown(summary):
    page = render(summary)
    assert summary["verdict"]["validity"] in page
    assert "fast quorum 3" in page
    assert summary["setup"]["topology"]["name"] in page


def test_a_text_from_outside_cannot_become_markup(summary):
    page = render({**summary, "title": "<script>alert(1)</script>"})
    assert "<script>alert(1)" not in page


def test_every_run_and_rate_has_its_layer_on_the_map(summary):
    page = render(summary)
    for number in range(len(summary["runs"])):
        for at in range(len(summary["phases"])):
            layer = f"data-run='{number}' data-workload='{at}'"
            assert page.count(layer) == 1
    assert page.count("<g class='layer'") == 1  # one is shown, the others wait


def test_who_waits_between_commit_and_answer_is_drawn(summary):
    quiet = json.loads(json.dumps(summary))
    for phase in quiet["phases"]:
        for cell in phase["cells"]:
            cell["commit"] = cell["answer"]
    assert "Nobody waited" in render(quiet)
    assert "aria-label='From commit to answer'" not in render(quiet)
    quiet["phases"][0]["cells"][0]["commit"] = {"p50": 1.0, "p95": 2.0, "p99": None}
    assert "aria-label='From commit to answer'" in render(quiet)


def test_a_region_without_a_place_is_left_off_the_map(summary):
    setup = json.loads(json.dumps(summary["setup"]))
    for region in setup["topology"]["regions"]:
        region["lat"] = region["lon"] = None
    assert "World map" not in render({**summary, "setup": setup})


def test_land_and_ways_stay_on_the_map():
    assert len(land_path()) > 10_000
    x, y = project(0, 0)
    assert 0 < x < WIDTH
    assert 0 < y < HEIGHT


def test_a_way_over_the_date_line_is_cut():
    assert way_path((139.7, 35.7), (-122.0, 37.3)).count("M") == 2
    assert way_path((-77.5, 39.0), (-6.3, 53.4)).count("M") == 1
