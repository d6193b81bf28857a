"""The command as a whole: lazy, one line per error, documented exit codes."""

import errno
import os
import subprocess
import sys
from types import ModuleType

import pytest
import typer

import epaxos
from epaxos.cli import main, output
from epaxos.cli.exits import ExitCode, exit_code
from epaxos.cli.main import VERBS, run
from epaxos.cli.options import SEED_MAX
from epaxos.core.errors import (
    AddressError,
    Ambiguous,
    CodecError,
    ConfigError,
    Definite,
    StorageError,
)
from topology import TopologyError

HEAVY = {"aiohttp", "asyncio", "matplotlib", "msgspec", "networkx", "numpy", "orjson"}


@pytest.fixture
def verb(monkeypatch):
    """A verb `fake` whose function the test sets."""
    module = ModuleType("epaxos.cli.fake")
    module.app = typer.Typer()
    module.act = lambda: None

    @module.app.command()
    def fake(number: int = 0) -> None:
        """Does what the test says."""
        module.act()

    monkeypatch.setitem(sys.modules, "epaxos.cli.fake", module)
    monkeypatch.setitem(VERBS, "fake", "For tests.")
    return module


def raising(error):
    def act():
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), ExitCode.CONFIG),
        (TopologyError("x"), ExitCode.CONFIG),
        (StorageError("x"), ExitCode.STORAGE),
        (AddressError("x"), ExitCode.ADDRESS),
        (CodecError("x"), ExitCode.FAILED),
        (Definite("x"), ExitCode.FAILED),
        (Ambiguous("x"), ExitCode.FAILED),
        (OSError(errno.EADDRINUSE, "x"), ExitCode.ADDRESS),
        (OSError(errno.EACCES, "x"), ExitCode.FAILED),
        (AssertionError("x"), ExitCode.INTERNAL),
    ],
)
def test_exit_code_of_an_error(error, code):
    assert exit_code(error) is code


def test_exit_codes_are_what_is_documented():
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "FAILED": 1,
        "CONFIG": 2,
        "STORAGE": 3,
        "ADDRESS": 4,
        "INTERNAL": 70,
        "INTERRUPTED": 130,
    }


def test_error_is_one_line_on_stderr(verb, capsys):
    verb.act = raising(ConfigError("first\nsecond"))
    assert run(["fake"]) == ExitCode.CONFIG
    assert capsys.readouterr() == ("", "error: first second\n")


def test_bug_shows_its_traceback(verb, capsys):
    verb.act = raising(AssertionError("never"))
    assert run(["fake"]) == ExitCode.INTERNAL
    shown = capsys.readouterr().err.splitlines()
    assert shown[0].startswith("Traceback")
    assert shown[-1] == f"error: a bug in epaxos {epaxos.__version__}: AssertionError('never')"


def test_exit_and_interruption_keep_their_codes(verb, capsys):
    verb.act = raising(typer.Exit(ExitCode.FAILED))
    assert run(["fake"]) == ExitCode.FAILED
    verb.act = raising(KeyboardInterrupt())
    assert run(["fake"]) == ExitCode.INTERRUPTED
    verb.act = lambda: None
    assert run(["fake"]) == ExitCode.OK
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fake", "--number", "x"], ["--number", "integer", "epaxos fake --help"]),
        (["fake", "--nothing"], ["--nothing", "epaxos fake --help"]),
        (["fake", "more"], ["more", "epaxos fake --help"]),
        (["fak"], ["fak", "'fake'"]),
        (["--nothing"], ["--nothing", "epaxos --help"]),
    ],
)
def test_wrong_usage_names_the_field_and_the_help(verb, capsys, arguments, words):
    assert run(arguments) == ExitCode.CONFIG
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    for word in words:
        assert word in shown.err


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_verb_without_importing_it(capsys, arguments):
    assert run(arguments) == ExitCode.OK
    shown = capsys.readouterr().out
    for name, line in VERBS.items():
        assert name in shown
        assert line in shown


def test_version(capsys):
    assert run(["--version"]) == ExitCode.OK
    assert capsys.readouterr().out == f"epaxos {epaxos.__version__}\n"


def test_start_up_imports_nothing_heavy():
    script = "import sys, epaxos.cli.main; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert not HEAVY & set(found.stdout.split())


@pytest.mark.parametrize("module", ["epaxos", "epaxos.cli.main"])
def test_command_is_a_module(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "nonsense"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == ExitCode.CONFIG
    assert done.stderr == "error: No such command 'nonsense' (see epaxos --help)\n"


def test_completion_options_belong_to_the_command_alone(verb):
    assert [parameter.name for parameter in main.load_verb("fake").params] == ["number"]


def test_nothing_is_coloured_or_cut_in_a_pipe(capsys):
    table = output.make_table("region", ">p50")
    table.add_row("[bold]x" + "y" * 120, "1.0")
    output.console().print(table)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "y" * 120 in shown


def test_numbers_are_printed_in_units_of_people():
    assert [output.milliseconds(us) for us in (71_234, 1_234_567, None)] == ["71.2", "1,234.6", "–"]
    assert [output.count(n) for n in (1234567, None)] == ["1,234,567", "–"]
    sizes = [output.size(n) for n in (0, 999, 1000, 2_100_000, 999_999, 5 * 10**12, None)]
    assert sizes == ["0 B", "999 B", "1.0 kB", "2.1 MB", "1.0 MB", "5.0 TB", "–"]


def test_printable_escapes_what_a_terminal_must_not_get():
    assert output.printable("größe/1".encode()) == "größe/1"
    assert output.printable(b"a\xff\x1b[31m\n") == "a\\xff\\x1b[31m\\n"


def test_json_is_one_document(capsys):
    output.print_json({"a": [1, None], 2: "é"})
    assert capsys.readouterr().out == '{\n  "a": [\n    1,\n    null\n  ],\n  "2": "é"\n}\n'


@pytest.mark.parametrize(
    "arguments",
    [
        ["topology", "show", "lan:3"],
        ["topology", "show", "aws-5-2020"],
        ["topology", "list"],
        ["museum", "list"],
        ["experiment", "list"],
        ["topology", "show", "Genève"],
    ],
)
def test_what_a_stream_cannot_encode_is_replaced(arguments):
    done = subprocess.run(
        [sys.executable, "-m", "epaxos", *arguments],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
    )
    said = (done.stdout + done.stderr).decode("ascii")
    assert said
    assert "Traceback" not in said
    assert done.returncode in (ExitCode.OK, ExitCode.CONFIG), said


@pytest.mark.parametrize("seed", ["-1", "18446744073709551616", str(SEED_MAX + 1)])
@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "--seed"],
        ["compare", "--simulated", "--seed"],
        ["demo", "far-leader", "--seed"],
        ["demo", "region-down", "--seed"],
        ["load", "--seed"],
        ["bench", "--seed"],
        ["figures", "--seed"],
        ["up", "--seed"],
        ["serve", "--config", "none.toml", "--replica", "A", "--seed"],
        ["sim", "run", "--seed"],
        ["sim", "run", "--first-seed"],
        ["sim", "contention", "--seed"],
    ],
)
def test_a_seed_out_of_range_is_refused_alike_by_all_verbs(capsys, arguments, seed):
    assert run([*arguments, seed]) == ExitCode.CONFIG
    said = capsys.readouterr().err
    bound = "greater than or equal to 0 " if seed == "-1" else f"less than or equal to {SEED_MAX} "
    assert said.startswith(f"error: Invalid value for '{arguments[-1]}': Input should be {bound}")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "--rate", "nan"],
        ["compare", "--rate", "1_0"],
        ["compare", "--seed", "+1"],
        ["compare", "--seed", "٣"],
        ["compare", "--replicas", "9" * 5000],
        ["topology", "predict", "--sync-ms", "inf"],
    ],
)
def test_numbers_in_options_are_plain_digits(capsys, arguments):
    assert run(arguments) == ExitCode.CONFIG
    said = capsys.readouterr().err
    assert arguments[-2] in said
    assert len(said) < 300


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["explain", "\udcff", "--at", "http://127.0.0.1:1"], ExitCode.ADDRESS),
        (["explain", "--at", "http://127.0.0.1:1", "--timeout", "1e308"], ExitCode.CONFIG),
        (["graph", "--at", "http://127.0.0.1:1", "--timeout", "1e308"], ExitCode.CONFIG),
        (["sim", "contention", "--seconds", "1e308"], ExitCode.CONFIG),
    ],
)
def test_odd_names_and_times_of_requests_are_no_bugs_of_ours(arguments, code):
    assert run(arguments) == code
