"""What grows too large is split by a second reason to change; and the top level stays as it is."""

import subprocess

import pytest

from tests.house.sources import CODE, ROOT, functions, modules, named

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


@pytest.mark.parametrize("path", modules(*CODE), ids=named)
def test_sizes(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    is_replica = path.name == "replica.py" and "protocols" in path.parts
    assert len(lines) <= (REPLICA_LINES_MAX if is_replica else MODULE_LINES_MAX)
    long = {
        function.name: length
        for function in functions(path)
        if (length := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES_MAX
        and not _is_verb(function)
    }
    assert not long


def _is_verb(function):
    """A function that is a verb of the command line carries its options in its signature."""
    return any(
        decorator.func.attr == "command"
        for decorator in function.decorator_list
        if hasattr(decorator, "func") and hasattr(decorator.func, "attr")
    ) and (function.end_lineno - function.body[0].lineno < FUNCTION_LINES_MAX)


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
