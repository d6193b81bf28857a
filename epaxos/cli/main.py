"""The command `epaxos`: finds the verb's module, runs it, and turns what went wrong into one line.

Rules of this file: it imports no verb and nothing heavy, because every start of a replica and every
`--help` pays for it. A verb's module is imported when the verb is called; it offers a `typer.Typer`
named `app`, with one command (the verb itself) or several (then they are its sub-verbs). Verbs
raise the exceptions of `epaxos.core.errors`; nobody but `main` prints an error or ends the process.
"""

import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Annotated, Any, Final, get_args

import typer
from typer.core import TyperCommand, TyperGroup

import epaxos
from epaxos.cli.exits import ExitCode, exit_code
from epaxos.core.numbers import plain

VERBS: Final = {
    "compare": "EPaxos against Multi-Paxos over emulated regions.",
    "demo": "Leaderlessness, seen live: far leader, region down.",
    "up": "Start a local cluster and watch it; Ctrl-C stops all.",
    "kv": "Get, put, delete or compare-and-set a key.",
    "museum": "Known bugs, planted from outside and caught.",
    "topology": "List and show topologies; predict latencies on one.",
    "experiment": "Sweeps, resumable: run, show, report, diff.",
    "figures": "The papers' evaluation figures, measured here.",
    "sim": "Clusters in virtual time, by seed; everything fails.",
    "load": "Locust from every region, with percentiles and criteria.",
    "check": "Is a history linearizable? Ours, jepsen or porcupine.",
    "bench": "Throughput and CPU per command of a local cluster.",
    "explain": "How one request went, stage by stage.",
    "graph": "The live dependency graph of a replica.",
    "explore": "Every order of events in a small world, on the very code.",
    "inspect": "Say what is in a data directory; changes nothing.",
    "serve": "Run one replica, for real hosts.",
}
"""Every verb with its line in `epaxos --help`; the module is `epaxos.cli.<verb>`."""


_COMPLETION: Final = ("install_completion", "show_completion")
"""Options of `epaxos` that typer also gives to each verb."""


def load_verb(name: str) -> Any:
    """The command of a verb, from its module."""
    verb = import_module(f"epaxos.cli.{name}").app
    verb.rich_markup_mode = None  # help stands as written: <KEY> and [table] are no markup
    command = typer.main.get_command(verb)
    command.name = name
    _be_strict(command)
    command.params = [p for p in command.params if p.name not in _COMPLETION]
    return command


def _be_strict(command: Any) -> None:
    """Let all options take numbers in ASCII digits alone: typer also takes 1_0 and nan."""
    for each in getattr(command, "commands", {}).values():
        _be_strict(each)
    for option in command.params:
        kind = getattr(option, "type_descriptor", None)
        hint = None if kind is None else kind.annotation
        if {int, float} & {hint, *get_args(hint)}:
            option.process_value = partial(_process, option, option.process_value)


def _process(option: Any, process: Any, context: Any, value: Any) -> Any:
    found = process(context, value)
    if isinstance(value, str):
        try:
            plain(value)
        except ValueError as error:
            raise typer.BadParameter(str(error), ctx=context, param=option) from None
    return found


class LazyGroup(TyperGroup):
    """Knows its verbs by name and line of help; imports the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, line in VERBS.items():
            self.commands[name] = TyperCommand(name, help=line)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name in VERBS:
            command = load_verb(name)
            if isinstance(command, TyperGroup) and not command.invoke_without_command:
                rest = rest or ["--help"]  # as `epaxos` alone does
        return name, command, rest


app = typer.Typer(
    cls=LazyGroup,
    help=epaxos.__doc__,
    epilog="Exit codes: "
    + ", ".join(f"{code.value} {code.name.lower()}" for code in ExitCode)
    + ". Most verbs take --json.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"epaxos {epaxos.__version__}")
        raise typer.Exit(ExitCode.OK)


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code. Prints at most one line of error, unless the
    error is a bug of ours."""
    command = typer.main.get_command(app)
    try:
        code = command.main(
            list(arguments) or ["--help"], prog_name="epaxos", standalone_mode=False
        )
        return code if isinstance(code, int) else ExitCode.OK
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except typer.TyperException as error:
        return _complain(_usage_line(error), ExitCode.CONFIG)
    except Exception as error:
        code = exit_code(error)
        if code is ExitCode.INTERNAL:
            traceback.print_exc()
            return _complain(f"a bug in epaxos {epaxos.__version__}: {error!r}", code)
        return _complain(str(error), code)


def _usage_line(error: Any) -> str:
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message} (see {context.command_path} --help)" if context else message


def _complain(message: str, code: ExitCode) -> ExitCode:
    sys.stdout.flush()
    print("error:", " ".join(message.splitlines()), file=sys.stderr)
    return code


def main() -> None:
    """Entry point of the console script, and of `python -m`."""
    if sys.path[0] in ("", os.getcwd()):  # `python -m` looks there first: ours come first
        sys.path.append(sys.path.pop(0))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a `?` in a table; stderr escapes by itself
    _be_terminable()
    sys.exit(run(sys.argv[1:]))


def _be_terminable() -> None:
    """SIGTERM and SIGHUP mean what Ctrl-C means: what was started is ended, and nothing is left
    that looks like a result. One that is ignored, as under nohup, stays so; after the first the
    others are, for a closed terminal may send several, and ending must not be cut short."""

    def interrupt(number: int, frame: object) -> None:
        for each in heard:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    heard = [each for each in numbers if signal.getsignal(each) == signal.SIG_DFL]
    for each in heard:
        signal.signal(each, interrupt)


if __name__ == "__main__":
    main()
