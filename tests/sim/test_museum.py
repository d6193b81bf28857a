"""Every bug of the museum is caught within its budget, by a sentence that it is known to break, and
the code as it is passes the same schedules: so it was the bug that was found."""

import re
from pathlib import Path

import orjson
import pytest

from epaxos.cli.main import run
from epaxos.core.errors import ConfigError
from epaxos.registry import find_protocol
from epaxos.sim.check import checkers
from epaxos.sim.museum import EXHIBITS, find
from epaxos.sim.museum.exhibit import Directed, acquit, examine
from epaxos.sim.museum.telling import narrate

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = {
    value for name, value in vars(checkers).items() if name.isupper() and isinstance(value, str)
}


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_a_bug_is_caught_and_the_code_as_it_is_passes(exhibit):
    verdict = examine(exhibit)
    assert verdict.caught is not None, f"not caught in {exhibit.budget} schedules"
    assert verdict.caught.property in exhibit.properties
    acquitted = acquit(exhibit, verdict.schedules)
    assert acquitted.caught is None


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_an_exhibit_names_its_source_and_tells_its_story(exhibit):
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", exhibit.name)
    assert exhibit.source
    assert exhibit.title
    assert not exhibit.title.endswith(".")
    assert len(re.findall(r"[.?](?= |$)", exhibit.story)) >= 2
    assert exhibit.properties
    assert set(exhibit.properties) <= SENTENCES
    if isinstance(exhibit.search, Directed):
        assert exhibit.search.play.__doc__, "a schedule played by hand says what happens in it"
        assert exhibit.budget == 1


def test_names_are_unique_and_many():
    names = [exhibit.name for exhibit in EXHIBITS]
    assert len(set(names)) == len(names) >= 24


def test_a_plant_leaves_nothing_behind():
    for exhibit in EXHIBITS:
        before = find_protocol(exhibit.protocol)
        with exhibit.plant(before):
            pass
        assert find_protocol(exhibit.protocol) == before
    replayed = next(e for e in EXHIBITS if e.name == "any-deps")
    assert examine(replayed).caught is not None
    assert acquit(replayed, 1).caught is None


def test_no_code_outside_the_museum_knows_of_it():
    museum = ROOT / "epaxos" / "sim" / "museum"
    allowed = {ROOT / "epaxos" / "cli" / "museum.py", ROOT / "epaxos" / "cli" / "main.py"}
    for folder in ("epaxos", "bench", "topology"):
        for path in (ROOT / folder).rglob("*.py"):
            if museum in path.parents or path in allowed:
                continue
            text = path.read_text(encoding="utf-8")
            assert "sim.museum" not in text, path
            assert not [e.name for e in EXHIBITS if f'"{e.name}"' in text], path


def test_most_observers_are_proven_by_a_bug():
    first = {exhibit.properties[0] for exhibit in EXHIBITS}
    unproven = SENTENCES - first
    assert unproven <= {
        checkers.PROPOSED,
        checkers.INVARIANT,
        checkers.ASSERTION,
        checkers.BOUNDED,
    }


def test_a_catch_is_cut_down_and_ends_with_a_sentence():
    exhibit = find("one-ballot")
    told = narrate(exhibit, examine(exhibit).caught, lambda: True)
    assert told.left <= told.played
    assert "├" in told.chart
    assert re.fullmatch(
        r"[A-C]\.1 was committed as (\(put x \d\)|Nop) at [A-C] and as (\(put x \d\)|Nop) at"
        r" [A-C]\.",
        told.conclusion,
    )


def test_what_never_happens_is_told_as_it_was_played():
    exhibit = find("deferred-for-ever")
    told = narrate(exhibit, examine(exhibit).caught, lambda: True)
    assert told.left is None
    assert "takes over A.1" in told.chart


def test_a_wrong_name_is_answered_with_those_nearby():
    with pytest.raises(ConfigError, match="one-ballot"):
        find("oneballot")


def test_the_command_lists_shows_and_runs(capsys):
    assert run(["museum"]) == 0
    assert "one-ballot" in capsys.readouterr().out
    assert run(["museum", "show", "one-ballot"]) == 0
    assert "Sutra" in capsys.readouterr().out
    assert run(["museum", "run", "preaccept-after-the-promise"]) == 0
    out = capsys.readouterr().out
    assert "The code as it is passes the same schedules." in out
    assert out.rstrip().endswith("A.1 was committed as (put x 1) at A and as Nop at B.")
    assert run(["museum", "run", "nop-over-a-commit", "--no-shrink", "--json"]) == 0
    found = orjson.loads(capsys.readouterr().out)
    assert found["succeeded"]
    assert found["events_left"] is None
    assert found["property"] == checkers.AGREEMENT


def test_the_command_says_what_is_missing(capsys):
    assert run(["museum", "run"]) == 2
    assert "--all" in capsys.readouterr().err
    assert run(["museum", "show", "no-such-bug"]) == 2


def test_the_document_has_every_exhibit_with_its_title_and_source():
    text = (ROOT / "docs" / "museum.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z-]+)` \| (.+?) \| (.+?) \|", text, re.MULTILINE)
    assert listed == [(e.name, e.title, e.source) for e in EXHIBITS]
