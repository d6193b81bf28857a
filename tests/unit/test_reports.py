"""The report is one file that needs no network and says what the summary says."""

import json
import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.analysis.stages import Sampled, waterfall
from bench.compare.verdict import headline, key_figures
from bench.reports import load
from bench.reports.comparison import render, write_report
from bench.reports.figures import render as render_figures
from bench.reports.load import render as render_load
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


def test_the_page_begins_with_a_sentence_and_three_numbers(summary):
    page = render(summary)
    places = [page.index(escape(headline(summary), quote=False))]
    figures = key_figures(summary)
    assert len(figures) == 3
    places += [page.index(f"<b>{each.value}</b>") for each in figures]
    places.append(page.index('<section class="verdict">'))
    assert places == sorted(places)


EVIL = "</text><script>alert('1')</script>"


def test_a_text_from_outside_cannot_become_markup(summary):
    evil = json.loads(json.dumps(summary))
    evil["title"] = EVIL
    for region in evil["setup"]["topology"]["regions"]:
        region["title"] = EVIL
    for run in evil["runs"]:
        run["label"] = run["title"] = EVIL
    for phase in evil["phases"]:
        phase["title"] = phase["label"] = EVIL
        phase["cells"][0]["commit"] = {"p50": 1.0, "p95": 2.0, "p99": None, "p99_9": None}
        samples = [Sampled(100.0, {"sync": 100.0}, "A")]
        phase["waterfalls"] = [waterfall("epaxos", "VA", samples, ["VA"])]
    evil["verdict"]["reasons"] = [EVIL]
    page = render(evil)
    assert page.count("alert(") > 100
    assert "<script>alert" not in page
    assert "</text><script>" not in page


def test_a_load_has_no_text_that_becomes_markup():
    percentiles = {"p50": 5.0, "p95": 6.0, "p99": 7.0, "p99_9": 8.0}
    row = {
        "region": EVIL,
        "sent": 9,
        "answered": 8,
        "failed": 1,
        "failures": {EVIL: 1},
        "rate": 1.0,
        **dict.fromkeys(("answer", "commit", "wait"), percentiles),
        "fast_share": 1.0,
        "shared_share": 0.0,
    }
    step = {"step": 0, "wanted": 50.0, "regions": [row], "total": row}
    page = render_load(
        {
            "setup": {"title": EVIL, "loop": "open", "workload": EVIL},
            "steps": [step, step],
            "operations": [],
            "generators": [],
            "criteria": [],
            "sustained": None,
            "validity": "INVALID",
            "reasons": [EVIL],
        }
    )
    assert page.count("alert(") > 5
    assert "<script>" not in page
    assert "Latency over load" in page


def test_figures_have_no_text_that_becomes_markup(tmp_path):
    (tmp_path / "a.svg").write_text("<svg/>")
    picture = {"file": "a", "title": EVIL, "caption": EVIL, "conditions": EVIL}
    study = {
        "name": "a",
        "question": EVIL,
        "source": EVIL,
        "validity": "SUSPECT",
        "reasons": [EVIL] * 10,
        "pictures": [picture | {"rows": [{"region_name": EVIL, "ms": 1234.56}, {"ms": None}]}],
    }
    machine = {"system": EVIL, "cpus": 2, "cpu": EVIL}
    made = dict.fromkeys(("version", "command_line", "begun", "ended", "code", "python"), EVIL)
    page = render_figures(
        {
            "figures": [study],
            "scale": {"repeats": 1, "simulated_s": 1.0, "real_repeats": 2, "real_s": 2.0},
            "manifest": made | {"machine": machine},
            "notes": [EVIL],
            "trials": 3,
            "reused": 1,
        },
        tmp_path,
    )
    assert page.count("alert(") > 10
    assert "<script>" not in page
    assert "1,234.6" in page
    assert "and 2 more, in figures.json" in page


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
    quiet["phases"][0]["cells"][0]["commit"] = {"p50": 1.0, "p95": 2.0, "p99": None, "p99_9": None}
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


@pytest.mark.parametrize("p95", [72.5, 74.0, 79.0, 200.0])
def test_no_tick_strikes_the_figure_of_a_bar_through(p95):
    row = {
        "region": "R1",
        "answer": {"p50": 72.4, "p95": p95, "p99": p95 + 5},
        "commit": {"p50": 72.4},
    }
    drawn = str(load._bar(row, 0.0, 205.0))
    ticks = [float(at) for at in re.findall(r"<line[^>]* x1='([\d.]+)'", drawn.replace('"', "'"))]
    left = [
        float(at)
        for at, said in re.findall(r"<text[^>]* x='([\d.]+)'[^>]*>([^<]*)", drawn.replace('"', "'"))
        if said == "72.4"
    ]
    assert len(ticks) == 2
    assert len(left) == 1
    assert not [tick for tick in ticks if left[0] <= tick <= left[0] + 45]
