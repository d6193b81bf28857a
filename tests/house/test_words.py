"""One thing, one word: what the glossary replaced does not come back as a name."""

import ast
import re

import pytest

from tests.house.sources import CODE, ROOT, modules, named, tree

REPLACED = {
    "coordinator": "command leader",
    "watermark": "floor, stable or executed",
    "epoch_number": "ballot",
    "master": "leader",
    "noop": "Nop",
    "supermajority": "fast quorum",
    "timestamp_deps": "deps",
    "txn": "command",
}
ABSOLUTE = re.compile(r"(?<![\w.:/<{$])/(?:home|root|work|Users|opt|usr/local)/")
TEXT = (".py", ".md", ".toml", ".json")


def identifiers(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


@pytest.mark.parametrize("path", modules(*CODE), ids=named)
def test_names_use_the_words_of_the_glossary(path):
    used = {name.lower() for name in identifiers(path)}
    wrong = {
        name: better
        for name in used
        for word, better in REPLACED.items()
        if word in name.split("_")
    }
    assert not wrong


def test_nothing_names_a_place_on_somebodys_machine():
    found = [
        f"{named(path)}:{number}"
        for folder in (*CODE, "docs", "tests")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in TEXT and path.name != "test_words.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if ABSOLUTE.search(line)
    ]
    assert not found
