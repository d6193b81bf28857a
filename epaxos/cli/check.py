"""`epaxos check`: is a history linearizable? Of ours, of jepsen, of porcupine, or your own.

    epaxos check history.jsonl
    epaxos check results/…-load/history/*.jsonl

Several files are one history, each of the calls of another process.
"""

from pathlib import Path
from typing import Annotated

import typer
from msgspec import structs, to_builtins
from rich.console import Console

from bench.history.calls import ABSENT, ANYTHING, OTHER
from bench.history.judge import BUDGET, HistoryVerdict, judge, unfinished
from bench.history.reading import ReadHistory, read_history
from bench.progress import ProgressClock
from epaxos.cli.exits import ExitCode
from epaxos.cli.options import Json
from epaxos.cli.output import STYLES, begin, calls_table, print_json
from epaxos.cli.progress import show_bar
from epaxos.core.errors import ConfigError

app = typer.Typer()

_STYLES = {"OK": STYLES["VALID"], "UNKNOWN": STYLES["SUSPECT"], "ILLEGAL": STYLES["INVALID"]}
_CALLS_PER_S = 100_000
"""For the estimate."""


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="One history.")],
    initial: Annotated[
        str | None,
        typer.Option(
            metavar="WORD",
            help="What keys held before: absent (nothing), other (nothing that is written here) or "
            "unknown.  [default: as the file says]",
        ),
    ] = None,
    budget: Annotated[
        int, typer.Option(min=1, max=10**9, help="Positions that a search may visit, per key.")
    ] = BUDGET,
    json: Json = False,
) -> None:
    """Judge whether a history is linearizable: OK, ILLEGAL or UNKNOWN.

    Reads lines of JSON (docs/check.md), jepsen's and porcupine's histories; which it is, is seen in
    the content. ILLEGAL shows the smallest stretch of calls that no order explains. UNKNOWN says
    that the budget was exhausted, or calls are missing. Ends with 1 unless it is OK."""
    if initial not in (None, ABSENT, OTHER, ANYTHING):
        raise ConfigError(f"--initial {initial!r}: write {ABSENT}, {OTHER} or {ANYTHING}")
    remarks, screen = begin(", ".join(map(str, files)), json=json)
    found = ReadHistory()
    for number, path in enumerate(files):
        found = read_history(path, found if number else None)
    if initial is not None:
        found.initial = None if initial == ABSENT else initial
    verdict = _judge(found, budget, remarks)
    if json:
        print_json(to_builtins(verdict) | {"sentence": verdict.sentence()})
    else:
        screen.print(verdict.sentence(), style=_STYLES[verdict.verdict], soft_wrap=True)
        if verdict.shown:
            screen.print(calls_table([structs.asdict(each) for each in verdict.shown]))
    if verdict.verdict != "OK":
        raise typer.Exit(ExitCode.FAILED)


def _judge(found: ReadHistory, budget: int, remarks: Console) -> HistoryVerdict:
    calls = sum(map(len, found.keys.values()))
    with show_bar(remarks) as watch:
        expected_s = calls / _CALLS_PER_S
        clock = ProgressClock(expected_s, watch)
        verdict = judge(
            found.keys,
            found.initial,
            budget,
            lambda share: clock.tell("", f"{calls:,} calls", share, expected_s),
        )
    return unfinished(verdict, found.unfinished) if found.unfinished else verdict
