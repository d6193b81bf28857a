"""What the documents say exists, and what they list is complete."""

import re
import subprocess
import sys
import tomllib

import pytest
from typer.core import TyperGroup

from epaxos.cli.exits import ExitCode
from epaxos.cli.main import VERBS, load_verb
from epaxos.core.quorum import quorums
from epaxos.protocols.epaxos.recovery import RULES
from epaxos.runtime.config import Cluster, load_config
from tests.house.sources import ROOT, objections, offenders

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#([\w-]+))?\)")


def text_of(name):
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def table_keys(text, heading):
    """The first column of the table under a heading line, without its marks."""
    lines = text[text.index(heading) :].splitlines()[2:]
    keys = []
    for line in lines:
        if not line.startswith("|"):
            break
        keys.append(line.split("|")[1].strip(" `"))
    return keys


def lines_of(page):
    return enumerate(page.read_text(encoding="utf-8").splitlines(), 1)


def broken_links(page):
    """Links to files that are not there, and to headings that they do not have."""
    for number, line in lines_of(page):
        for target, anchor in LINK.findall(line):
            path = (page.parent / target).resolve()
            if "://" in target:
                continue
            if not path.exists():
                yield number, f"no file {target}"
            elif anchor and anchor not in anchors(path):
                yield number, f"{target} has no heading {anchor}"


def anchors(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [heading.lower().replace(" ", "-") for heading in headings]


def commands_of(page):
    """The words after `epaxos` of every command in a block of shell, or quoted in a line."""
    in_shell, begun = False, ""
    for number, line in lines_of(page):
        if line.startswith("```"):
            in_shell = line == "```sh"
        texts = [begun + line] if in_shell else re.findall(r"`([^`]+)`", line)
        begun = ""
        if in_shell and line.endswith("\\"):
            begun = texts.pop()[:-1]
        for command in re.split(r" #|[;|\n]|&&", "\n".join(texts)):
            if found := re.search(r"(?:^|run |-m )epaxos ([a-z].*)", command.strip()):
                yield number, found[1].split()


def options_of(command):
    return {"--help", "-h"}.union(*([*each.opts, *each.secondary_opts] for each in command.params))


def unknown_commands(page):
    """`epaxos VERB`, its sub-verb or an option of them, where there is no such thing."""
    for number, words in commands_of(page):
        if words[0] not in VERBS:
            yield number, f"epaxos {words[0]}"
            continue
        command = load_verb(words[0])
        known, said = options_of(command), f"epaxos {words[0]}"
        if isinstance(command, TyperGroup) and words[1:] and not words[1].startswith("-"):
            said += f" {words[1]}"
            if words[1] not in command.commands:
                yield number, said
                continue
            known |= options_of(command.commands[words[1]])
        for option in [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]:
            if option not in known:
                yield number, f"{said} {option}"


def test_links_lead_somewhere():
    assert offenders(broken_links, PAGES) == []


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "other.md").write_text("# Some heading\n", encoding="utf-8")
    text = (
        "[a](gone.md)\n[b](other.md#some-heading) [c](other.md#none) [d](https://x.org/gone.md)\n"
    )
    assert objections(broken_links, tmp_path, text, "page.md") == [
        "1: no file gone.md",
        "2: other.md has no heading none",
    ]


def test_commands_in_documents_exist():
    assert offenders(unknown_commands, PAGES) == []


def test_a_command_that_does_not_exist_is_named(tmp_path):
    text = (
        "epaxos prose\n`epaxos fly` and `epaxos up`\n```sh\nuv run epaxos walk\nepaxos sim\n"
        "epaxos sim run --seeds 3 # --fast\nepaxos sim --seeds 3\nepaxos sim walk\n"
        "epaxos up ; epaxos sim run \\\n  --no-shrink --fast=1 -2\n```\n"
    )
    assert objections(unknown_commands, tmp_path, text, "page.md") == [
        "2: epaxos fly",
        "4: epaxos walk",
        "7: epaxos sim --seeds",
        "8: epaxos sim walk",
        "10: epaxos sim run --fast",
    ]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb):
    done = subprocess.run(
        [sys.executable, "-m", "epaxos", verb, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: epaxos {verb}")
    assert done.stderr == ""


def test_every_setting_is_documented():
    keys = table_keys(text_of("operating.md"), "| key | default |")
    assert keys == [field for field in Cluster.__struct_fields__ if field != "replicas"]


def test_defaults_are_those_documented():
    lines = text_of("operating.md").splitlines()
    for field, default in zip(Cluster.__struct_fields__[2:], Cluster.__struct_defaults__):
        (line,) = [line for line in lines if line.startswith(f"| `{field}` |")]
        said = line.split("|")[2].strip(" `")
        known = {"": "none", True: "true", False: "false", 2**30: "1 GiB", 2**20: "1 MiB"}
        # 1 == True: numbers other than bytes are said as they are.
        word = str(default) if default == 1 and default is not True else known.get(default)
        assert said == (word or str(default)), field


def test_every_exit_code_is_documented():
    keys = table_keys(text_of("operating.md"), "| code | |")
    assert keys == [str(code.value) for code in ExitCode]


def test_every_rule_of_recovery_is_documented_in_its_order():
    headings = ("| rule | the answers |", "| rule | the objections |", "| rule | | |")
    keys = [key for heading in headings for key in table_keys(text_of("protocol.md"), heading)]
    assert keys == list(RULES)


def test_example_of_a_cluster_is_valid(tmp_path):
    (example,) = re.findall(r"```toml\n(.*?)```", text_of("operating.md"), re.DOTALL)
    tomllib.loads(example)
    path = tmp_path / "cluster.toml"
    path.write_text(example, encoding="utf-8")
    settings = load_config(path, "VA", tmp_path, {}, {})
    assert settings.me == 0
    assert len(settings.cluster.replicas) == 3


def test_quorum_table_is_the_one_computed():
    rows = re.findall(r"^\| (\d) \| (\d) \| (\d) \| (\d) \| (\d) \|$", text_of("protocol.md"), re.M)
    assert len(rows) == 9
    for row in rows:
        n, f, e, slow, fast = map(int, row)
        assert quorums(n) == (n, f, e, fast, slow)


def test_readme_and_index_link_every_page():
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for source, prefix in ((readme, "docs/"), (text_of("index.md"), "")):
        linked = {target.removeprefix(prefix) for target, _ in LINK.findall(source)}
        assert not pages - linked
    assert "docs/index.md" in readme


def test_no_figure_of_the_readme_is_suspect():
    assert "SUSPECT" not in (ROOT / "README.md").read_text(encoding="utf-8")
