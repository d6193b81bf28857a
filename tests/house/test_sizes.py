"""What grows too large is split by a second reason to change; and the top level stays as it is."""

import subprocess

import pytest

from tests.house.sources import CODE, ROOT, functions, modules, named, objections, offenders

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 600
REPLICA_LINES_MAX = 800
TOP_LEVEL = {
    "LICENSE",
    "README.md",
    "bench",
    "docs",
    "epaxos",
    "pyproject.toml",
    "tests",
    "topology",
    "uv.lock",
}


def too_large(path):
    """Modules and functions with more lines than the house allows."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    is_replica = path.name == "replica.py" and "protocols" in path.parts
    allowed = REPLICA_LINES_MAX if is_replica else MODULE_LINES_MAX
    if lines > allowed:
        yield lines, f"the module has more than {allowed} lines"
    for function in functions(path):
        length = function.end_lineno - function.lineno + 1
        if length > FUNCTION_LINES_MAX and not _is_verb(function):
            yield function.lineno, f"{function.name} has {length} lines"


def _is_verb(function):
    """A function that is a verb of the command line carries its options in its signature."""
    return any(
        decorator.func.attr == "command"
        for decorator in function.decorator_list
        if hasattr(decorator, "func") and hasattr(decorator.func, "attr")
    ) and (function.end_lineno - function.body[0].lineno < FUNCTION_LINES_MAX)


def test_nothing_is_too_large():
    assert offenders(too_large, modules(*CODE)) == []


def test_what_is_too_large_is_named(tmp_path):
    def says(*parts, name="example.py"):
        return objections(too_large, tmp_path, "".join(parts), name)

    body = "    x = 1\n" * (FUNCTION_LINES_MAX - 1)
    verb = "@app.command()\ndef serve(\n" + "    x,\n" * 40 + "):\n"
    assert says("def f():\n", body) == []
    assert says("X = 1\n\n\nclass A:\n  def f(self):\n", body, "    x = 2\n") == [
        "5: f has 71 lines"
    ]
    assert says(verb, body, "    x = 2\n") == []
    assert says(verb, body, "    x = 2\n" * 2) == ["2: serve has 113 lines"]
    module = "X = 1\n" * MODULE_LINES_MAX
    assert says(module) == []
    assert says(module, "X = 2\n") == ["601: the module has more than 600 lines"]
    replica = "epaxos/protocols/own/replica.py"
    assert says("X = 1\n" * REPLICA_LINES_MAX, name=replica) == []
    assert len(says("X = 1\n" * (REPLICA_LINES_MAX + 1), name=replica)) == 1


def test_there_is_no_drawer_for_everything():
    assert not [named(path) for path in modules(*CODE, "tests") if path.stem in ("utils", "util")]


def test_top_level_holds_what_was_decided():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    top = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    assert {entry for entry in top if not entry.startswith(".")} == TOP_LEVEL
