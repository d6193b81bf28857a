"""One thing, one word: what the glossary replaced does not come back as a name, and no two things
have one name."""

import ast
import re
from collections import defaultdict

from tests.house.sources import CODE, ROOT, modules, named, objections, offenders, tree

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
STILL_DOUBLED = {"Client", "Results", "TakeOver", "Waiting"}
"""Words that stand for several classes. This set only shrinks: take off it what is one class."""
ABSOLUTE = re.compile(r"(?<![\w.:/<{$])/(?:home|root|work|Users|opt|usr/local)/")
TEXT = (".py", ".md", ".toml", ".json")


def identifiers(path):
    """(line, name) of everything that is named or defined."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def replaced_words(path):
    """Names with a word for which the glossary has a better one."""
    for line, name in identifiers(path):
        for word in REPLACED.keys() & set(name.lower().split("_")):
            yield line, f"{name}: say {REPLACED[word]}"


def places(path):
    """Lines with a path that exists on somebody's machine only."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if ABSOLUTE.search(line):
            yield number, line.strip()


def classes(paths):
    """Public name of a class -> where it is defined."""
    found = defaultdict(list)
    for path in paths:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(path)
    return found


def doubled(paths):
    """Names that stand for two classes or more -> where. Two protocols may say the papers' word for
    their messages, and a bug of the museum is planted in a class of the same name."""
    found = classes([path for path in paths if "museum" not in path.parts])
    return {
        name: [named(path) for path in where]
        for name, where in found.items()
        if len(where) > 1 and not all(_is_of_messages(path) for path in where)
    }


def _is_of_messages(path):
    return path.name == "messages.py" and "protocols" in path.parts


def test_names_use_the_words_of_the_glossary():
    assert offenders(replaced_words, modules(*CODE)) == []


def test_a_replaced_word_is_named(tmp_path):
    text = "class Master_Seat:\n    def f(self, noop):\n        return self.no_op.txn_id\n"
    assert sorted(objections(replaced_words, tmp_path, text)) == [
        "1: Master_Seat: say leader",
        "2: noop: say Nop",
        "3: txn_id: say command",
    ]


def test_nothing_names_a_place_on_somebodys_machine():
    files = [
        path
        for folder in (*CODE, "docs", "tests")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in TEXT and path.name != "test_words.py"
    ]
    assert offenders(places, files) == []


def test_a_place_on_somebodys_machine_is_named(tmp_path):
    text = "a\n  see /home/x/y\nhttps://example.org/opt/x\n./work/x\n"
    assert objections(places, tmp_path, text, "page.md") == ["2: see /home/x/y"]


def test_one_word_is_one_class():
    found = doubled(modules(*CODE))
    assert {name: where for name, where in found.items() if name not in STILL_DOUBLED} == {}
    assert found.keys() >= STILL_DOUBLED


def test_a_word_for_two_classes_is_named(tmp_path):
    def file(name, *names):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"class {each}:\n    pass\n" for each in names), "utf-8")
        return path

    paths = [
        file("epaxos/protocols/one/messages.py", "Accept", "Waiting"),
        file("epaxos/protocols/other/messages.py", "Accept"),
        file("epaxos/protocols/one/instance.py", "Waiting", "Phase", "_Own"),
        file("epaxos/sim/museum/votes.py", "Phase"),
        file("bench/phases.py", "_Own"),
    ]
    assert doubled(paths) == {"Waiting": [named(paths[0]), named(paths[2])]}
