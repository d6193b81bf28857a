"""`epaxos museum`: known and feared bugs, planted in the code that runs, and caught.

Rules of this file: it shows what `epaxos.sim.museum` finds; a bug that is not caught, or code that
does not pass the same schedules, is a failure.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import fill
from typing import Annotated, Any, Final

import typer

from epaxos.cli.exits import ExitCode
from epaxos.cli.options import Json
from epaxos.cli.output import console, count, make_table, print_json
from epaxos.core.errors import ConfigError
from epaxos.registry import find_protocol
from epaxos.sim.museum import EXHIBITS, find
from epaxos.sim.museum.exhibit import Directed, Exhibit, ExhibitVerdict, Load, acquit, examine
from epaxos.sim.museum.telling import Narrative, narrate, observer_of

app = typer.Typer(help="Known bugs, planted from outside and caught.")

WIDTH: Final = 100
SHRINK_S: Final = 60.0
"""How long one catch is cut down at most."""

Name = Annotated[str, typer.Argument(metavar="NAME", help="An exhibit; `epaxos museum` has all.")]


@dataclass(frozen=True)
class Visit:
    """One exhibit, searched."""

    exhibit: Exhibit
    verdict: ExhibitVerdict
    narrative: Narrative | None
    acquitted: bool
    """The code as it is passes the same schedules."""
    seconds: float

    @property
    def succeeded(self) -> bool:
        """Caught by a sentence that it is known to break, and by nothing else than the bug."""
        caught = self.verdict.caught
        return caught is not None and caught.property in self.exhibit.properties and self.acquitted


@app.callback(invoke_without_command=True)
def _museum(context: typer.Context) -> None:
    """Known bugs of EPaxos and Multi-Paxos, each planted in the code that runs, found by its
    search, and told as a chart. Without a command: lists them."""
    if context.invoked_subcommand is None:
        list_exhibits()


@app.command("list")
def list_exhibits(json: Json = False) -> None:
    """All exhibits with what is wrong in each, and where that was seen."""
    if json:
        print_json({"exhibits": [_document(exhibit) for exhibit in EXHIBITS]})
        return
    table = make_table("exhibit", "protocol", "what is wrong", "source")
    for exhibit in EXHIBITS:
        title = find_protocol(exhibit.protocol).title
        table.add_row(exhibit.name, title, exhibit.title, exhibit.source)
    console().print(table)
    console().print(f"{len(EXHIBITS)} bugs; `epaxos museum run NAME` plants one and finds it.")


@app.command()
def show(name: Name, json: Json = False) -> None:
    """The story of one bug, and how it is searched for."""
    exhibit = find(name)
    if json:
        print_json(_document(exhibit))
        return
    _print_story(exhibit)


@app.command()
def run(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="An exhibit; or --all.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them, as a table.")] = False,
    shrink: Annotated[
        bool | None,
        typer.Option(help="Cut each catch down to its shortest story; default: for a single one."),
    ] = None,
    json: Json = False,
) -> None:
    """Plant a bug, search until an observer objects, and tell how it came about. Then give the same
    schedules to the code as it is, which must pass.

    Ends with 1 if a bug is not caught, or the code as it is does not pass."""
    if everything == (name is not None):
        raise ConfigError("name one exhibit, or say --all; `epaxos museum` lists them")
    if name is not None:
        visit = _visit(find(name), shrink is not False)
        if json:
            print_json(_found(visit))
        else:
            _print_visit(visit)
        succeeded = visit.succeeded
    else:
        visits = _visit_all(shrink is True)
        if json:
            print_json({"exhibits": [_found(visit) for visit in visits]})
        else:
            _print_visits(visits)
        succeeded = all(visit.succeeded for visit in visits)
    if not succeeded:
        raise typer.Exit(ExitCode.FAILED)


def _visit_all(shrink: bool) -> list[Visit]:
    remarks = console(stderr=True)
    if not remarks.is_terminal:
        return [_visit(exhibit, shrink) for exhibit in EXHIBITS]
    with remarks.status("") as status:
        visits: list[Visit] = []
        for exhibit in EXHIBITS:
            status.update(f"{len(visits)} of {len(EXHIBITS)}: {exhibit.name}")
            visits.append(_visit(exhibit, shrink))
        return visits


def _visit(exhibit: Exhibit, shrink: bool) -> Visit:
    began = time.monotonic()
    verdict = examine(exhibit)
    narrative = None
    if verdict.caught is not None:
        acquitted = acquit(exhibit, verdict.schedules).caught is None
        seconds = time.monotonic() - began
        if shrink:
            narrative = narrate(exhibit, verdict.caught, _for_a_while())
    else:
        acquitted = False
        seconds = time.monotonic() - began
    return Visit(exhibit, verdict, narrative, acquitted, seconds)


def _for_a_while() -> Callable[[], bool]:
    end = time.monotonic() + SHRINK_S
    return lambda: time.monotonic() < end


def _print_story(exhibit: Exhibit) -> None:
    screen = console()
    screen.print(exhibit.title, style="bold")
    screen.print(f"{exhibit.name}, {find_protocol(exhibit.protocol).title}")
    screen.print(fill(f"Source: {exhibit.source}.", WIDTH))
    screen.print()
    screen.print(fill(exhibit.story, WIDTH))
    screen.print()
    screen.print(fill(_say_search(exhibit), WIDTH))


def _say_search(exhibit: Exhibit) -> str:
    search = exhibit.search
    if isinstance(search, Directed):
        play = " ".join((search.play.__doc__ or "").split())
        return f"Played by hand: {play}"
    if isinstance(search, Load):
        return "Searched for in a run under load, without faults."
    schedules = "schedule" if exhibit.budget == 1 else "schedules"
    return f"Searched for at random, in at most {exhibit.budget} {schedules}."


def _print_visit(visit: Visit) -> None:
    exhibit, caught, narrative = visit.exhibit, visit.verdict.caught, visit.narrative
    _print_story(exhibit)
    screen = console()
    screen.print()
    if caught is None:
        tried = count(visit.verdict.schedules)
        screen.print(f"Not caught in {tried} schedules, as it should have been.")
        return
    screen.print(_say_catch(visit))
    chart = caught.chart if narrative is None else narrative.chart
    if chart:
        screen.print()
        screen.print(chart, soft_wrap=True)
    screen.print()
    passes = "passes" if visit.acquitted else "DOES NOT PASS"
    screen.print(f"The code as it is {passes} the same schedules.")
    screen.print(fill(f"Violated: {caught.property}.", WIDTH))
    conclusion = caught.detail if narrative is None else narrative.conclusion
    screen.print(fill(conclusion, WIDTH), style="bold")


def _say_catch(visit: Visit) -> str:
    narrative = visit.narrative
    found = f"Caught in schedule {visit.verdict.schedules}"
    if narrative is None or narrative.played is None:
        return f"{found}."
    played = count(narrative.played)
    if narrative.left is not None:
        return (
            f"{found}: {played} events, of which {count(narrative.left)} remain; replicas are "
            "named by the order in which they appear."
        )
    if isinstance(visit.exhibit.search, Directed):
        return f"{found}: {played} events, as they were played."
    return f"{found}; the smallest run found that ends so has {played} events, at last these:"


def _print_visits(visits: list[Visit]) -> None:
    table = make_table(
        "exhibit", ">schedules", ">at most", ">events", "caught by", "the code as it is"
    )
    for visit in visits:
        caught = visit.verdict.caught
        events = None if visit.narrative is None else visit.narrative.left or visit.narrative.played
        table.add_row(
            visit.exhibit.name,
            count(visit.verdict.schedules),
            count(visit.exhibit.budget),
            count(events),
            "NOT CAUGHT" if caught is None else observer_of(caught.property),
            "passes" if visit.acquitted else "DOES NOT PASS",
        )
    console().print(table)
    good = sum(visit.succeeded for visit in visits)
    seconds = sum(visit.seconds for visit in visits)
    console().print(f"{good} of {len(visits)} caught as they should be, in {seconds:.1f} s.")


def _document(exhibit: Exhibit) -> dict[str, Any]:
    return {
        "name": exhibit.name,
        "protocol": exhibit.protocol,
        "title": exhibit.title,
        "source": exhibit.source,
        "story": exhibit.story,
        "search": type(exhibit.search).__name__.lower(),
        "budget": exhibit.budget,
        "properties": exhibit.properties,
    }


def _found(visit: Visit) -> dict[str, Any]:
    caught, narrative = visit.verdict.caught, visit.narrative
    return {
        **_document(visit.exhibit),
        "caught": caught is not None,
        "schedules": visit.verdict.schedules,
        "property": None if caught is None else caught.property,
        "detail": None if caught is None else caught.detail,
        "conclusion": None if narrative is None else narrative.conclusion,
        "events_played": None if narrative is None else narrative.played,
        "events_left": None if narrative is None else narrative.left,
        "chart": None if caught is None else caught.chart if narrative is None else narrative.chart,
        "code_passes": visit.acquitted,
        "succeeded": visit.succeeded,
        "seconds": visit.seconds,
    }
