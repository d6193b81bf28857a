"""`epaxos demo`: leaderlessness, seen live. A leader moves far away; a region dies and returns."""

import shutil
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from bench import demo as demos
from bench.demo import Demo, DemoReport, Steps
from bench.drawing import style
from bench.run_directory import make_directory, manifest, measuring, write_json
from bench.trials.trial import Outcome
from epaxos.cli.options import Json, LoadSeed, Out, Simulated, TopologyName
from epaxos.cli.output import STYLES, begin, make_table, print_json
from epaxos.cli.progress import line, show_live
from topology import DEFAULT

app = typer.Typer(no_args_is_help=True, help="Leaderlessness, seen live.")

_BARS: Final = "▁▂▃▄▅▆▇█"
_SPARK_COLUMNS: Final = 30
_COLOURS: Final = {demos.MULTIPAXOS: "yellow", demos.EPAXOS: "cyan"}

_Replicas = Annotated[int | None, typer.Option(min=3, max=9, help="Only so many of its regions.")]


@app.command("far-leader")
def far_leader(
    topology: TopologyName = DEFAULT,
    replicas: _Replicas = None,
    seconds: Annotated[float, typer.Option(min=0.5, max=3600, help="Measured.")] = 16.0,
    simulated: Simulated = False,
    seed: LoadSeed = 1,
    out: Out = Path("results"),
    json: Json = False,
) -> None:
    """The leader moves from the best region for it to the worst; EPaxos beside it has none.

    Starts a cluster of each protocol on this machine, over emulated regions, with the same load.
    Shows the latest latencies of each region, writes a figure, and says what was seen."""
    _show(demos.far_leader(topology, replicas, seconds, simulated=simulated, seed=seed), out, json)


@app.command("region-down")
def region_down(
    topology: TopologyName = DEFAULT,
    replicas: _Replicas = None,
    seconds: Annotated[float, typer.Option(min=0.5, max=3600, help="Measured.")] = 20.0,
    simulated: Simulated = False,
    seed: LoadSeed = 1,
    out: Out = Path("results"),
    json: Json = False,
) -> None:
    """The replica of one region, where Multi-Paxos's leader is, dies and returns.

    Starts a cluster of each protocol on this machine, over emulated regions, with the same load.
    Shows the latest latencies of each region, writes a figure, and says what was seen."""
    _show(demos.region_down(topology, replicas, seconds, simulated=simulated, seed=seed), out, json)


def _show(demo: Demo, out: Path, json: bool) -> None:
    begun = datetime.now()
    directory = make_directory(out, f"demo-{demo.name}", begun)
    remarks, screen = begin(f"{demo.title}\n{demos.caption(demo)}", json=json)
    with (
        measuring(directory, remarks) as replicas,
        show_live(remarks, partial(_draw, demo), _line) as watch,
    ):
        outcomes = demos.run(demo, replicas, watch)
        shutil.rmtree(replicas, ignore_errors=True)  # only a failure's logs are of use
    found = demos.pools(demo, outcomes)
    curves = demos.curves(demo, found)
    said = demos.sentences(demo, found)
    with style.styled():
        paths = style.save(demos.draw(demo, found), directory / demo.name)
    document = {
        "demo": demo.name,
        "title": demo.title,
        "conditions": demos.caption(demo),
        "regions": [region.title for region in demo.sites.regions],
        "step_s": demos.STEP_S,
        "median_ms": curves,
        "sentences": said,
        "validity": {title: outcome.validity for title, outcome in outcomes.items()},
        "reasons": {title: outcome.reasons for title, outcome in outcomes.items()},
        "manifest": manifest(begun),
    }
    write_json(directory / "demo.json", document)
    if json:
        print_json(document | {"directory": str(directory)})
        return
    screen.print(_table(demo, curves))
    for sentence in said:
        screen.print(sentence)
    _print_validity(screen, outcomes)
    png = next(path for path in paths if path.suffix == ".png")
    screen.print(f"figure  {png}  (also SVG and PDF)", soft_wrap=True)


def _print_validity(screen: Console, outcomes: dict[str, Outcome]) -> None:
    screen.print()
    for title, outcome in outcomes.items():
        why = f"  {outcome.reasons[0]}" if outcome.reasons else ""
        line = Text.assemble((outcome.validity, STYLES[outcome.validity]), f"  {title}{why}")
        screen.print(line, soft_wrap=True)


def _draw(demo: Demo, report: DemoReport) -> Group:
    return Group(_table(demo, report.steps), Text(_clock(report), style="dim"))


def _clock(report: DemoReport) -> str:
    return line(report) if report.at_s is None else f"{report.at_s:4.0f} s   {report.activity}"


def _line(report: DemoReport) -> str:
    """The latest of each region, for a log."""
    parts = [_clock(report)]
    for title, steps in report.steps.items():
        if any(steps):
            latest = [_ms(values[-1] if values else None) for values in steps]
            parts.append(f"{title} {' '.join(latest)} ms")
    return " · ".join(parts)


def _table(demo: Demo, steps: Steps) -> Table:
    """A row per region: both protocols' last steps as a line of bars, and the latest in ms."""
    known = [v for regions in steps.values() for values in regions for v in values if v is not None]
    longest = max(known, default=1.0)
    headings = [each for title in steps for each in (title, ">ms")]
    table = make_table("median answer", *headings)
    for number, region in enumerate(demo.sites.regions):
        cells: list[Text | str] = [region.title]
        for title, regions in steps.items():
            values = regions[number][-_SPARK_COLUMNS:]
            cells.append(Text(spark(values, longest), style=_COLOURS.get(title, "")))
            cells.append(_ms(values[-1] if values else None))
        table.add_row(*cells)
    return table


def spark(values: Sequence[float | None], longest: float) -> str:
    """A character per value, `·` where there is none; all lines share their scale."""
    top = len(_BARS) - 1
    return "".join(
        "·" if value is None else _BARS[min(top, int(value / longest * top + 0.5))]
        for value in values
    )


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
