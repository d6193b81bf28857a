"""Every number that a person may give has a smallest and a largest value, in every verb."""

from typing import get_args

import pytest

from epaxos.cli.main import VERBS, load_verb, run

ARGUMENTS = {
    "kv get": ["k"],
    "kv put": ["k", "v"],
    "kv delete": ["k"],
    "kv cas": ["k", "v"],
    "experiment run": ["quick"],
    "serve": ["--config", "none.toml", "--replica", "A"],
    "check": ["none.jsonl"],
    "explain": ["0.A.1.0"],
}


def number_options():
    def walk(command, path):
        for option in command.params:
            kind = getattr(option, "type_descriptor", None)
            hint = None if kind is None else kind.annotation
            if {int, float} & {hint, *get_args(hint)}:
                yield path, option.opts[0]
        for name, below in getattr(command, "commands", {}).items():
            yield from walk(below, f"{path} {name}")

    for verb in VERBS:
        yield from walk(load_verb(verb), verb)


@pytest.mark.parametrize("number", ["1" + "0" * 30, "-1"])
@pytest.mark.parametrize(("path", "option"), [*number_options()])
def test_a_number_out_of_range_is_refused_by_its_name(path, option, number, capsys):
    assert run([*path.split(), *ARGUMENTS.get(path, []), option, number]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert option in said or option.removeprefix("--").replace("-", "_") in said
