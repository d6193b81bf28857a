"""Parts from outside: found by entry point or as `package.module:NAME`, run, watched; what is wrong
with one is said in a sentence and breaks nothing else.

The examples are those of docs/hacking.md."""

import os
import re
import sys
import tomllib
from dataclasses import replace
from itertools import islice

import msgspec
import pytest

import topology
from epaxos.cli.exits import ExitCode
from epaxos.cli.main import run
from epaxos.core.command import Batch, Operation, Payload, Status
from epaxos.core.errors import ConfigError
from epaxos.core.replica import Decided, Path
from epaxos.registry import BUILT_IN, find_protocol, find_state_machine, protocol_names
from epaxos.sim.check import checkers
from epaxos.sim.options import draw
from epaxos.sim.run import CleanRun, Failure, simulate, tell
from epaxos.sim.soak import Profile, run_seed
from epaxos.workload import parse_workload, workload_names
from tests.house.sources import ROOT

EXAMPLES = ROOT / "docs" / "examples"
HACKING = (ROOT / "docs" / "hacking.md").read_text(encoding="utf-8")


@pytest.fixture
def examples(monkeypatch):
    """Their modules can be imported, here and in the processes that are started."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES), prepend=os.pathsep)


def distribution(place, name, points):
    """A distribution as an installer leaves it."""
    info = place / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for group, entries in points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def code_blocks(language, text=HACKING):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def installed(tmp_path, monkeypatch, examples):
    """A distribution with the entry points that docs/hacking.md writes."""
    (block,) = code_blocks("toml")
    distribution(tmp_path, "offices", tomllib.loads(block)["project"]["entry-points"])
    monkeypatch.syspath_prepend(str(tmp_path))


def planted(tmp_path, name, base):
    """A file with the class of docs/hacking.md."""
    (block,) = [each for each in code_blocks("python") if f"class {name}({base})" in each]
    path = tmp_path / f"{name.lower()}.py"
    path.write_text(block)
    return path


# How parts are found ----------------------------------------------------------------------------


def test_an_installed_protocol_has_a_name(installed):
    assert protocol_names() == [*BUILT_IN, "unanimous"]
    assert find_protocol("unanimous").title == "Unanimous"
    assert find_protocol("unanimous") is find_protocol("unanimous:SPEC")


def test_an_installed_topology_has_a_name(installed, capsys):
    found = topology.find("offices", 2)
    assert found.name == "offices"
    assert [region.title for region in found.regions] == ["Berlin", "Lisbon"]
    assert topology.find("offices").rtt_ms(0, 2) == 220
    assert run(["topology", "list"]) == ExitCode.OK
    assert "Three offices" in capsys.readouterr().out


def test_an_installed_workload_has_a_name(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "workloads.md").read_text(encoding="utf-8")
    (block,) = [each for each in code_blocks("toml", text) if "entry-points" in each]
    (code,) = [each for each in code_blocks("python", text) if "class Carts" in each]
    (tmp_path / "shop.py").write_text(code)
    distribution(tmp_path, "shop", tomllib.loads(block)["project"]["entry-points"])
    monkeypatch.syspath_prepend(str(tmp_path))
    workload = parse_workload("carts:carts=3,puts=1")
    commands = islice(workload.commands("R1"), 20)
    assert {command.key for command in commands} == {b"cart-0", b"cart-1", b"cart-2"}
    assert "carts" in workload_names()


def test_a_broken_entry_point_breaks_nothing_else(tmp_path, monkeypatch, capsys):
    broken = {"shaky": "no_such_module:SPEC", "epaxos": "no_such_module:SPEC"}
    distribution(
        tmp_path,
        "shaky",
        {"epaxos.protocols": broken, "epaxos.topologies": {"shore": "json:dumps"}},
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert protocol_names() == [*BUILT_IN, "shaky"]
    assert find_protocol("epaxos").title == "EPaxos"
    with pytest.raises(
        ConfigError, match=r"'shaky', entry point .* of shaky 1\.0, cannot be loaded"
    ):
        find_protocol("shaky")
    assert run(["sim", "run", "--protocol", "epaxos", "--seed", "1", "--jobs", "1"]) == ExitCode.OK
    assert run(["topology", "list"]) == ExitCode.OK
    shown = capsys.readouterr()
    assert "aws-5-2020" in shown.out
    assert "topology shore, entry point epaxos.topologies of shaky 1.0" in shown.err


def test_two_distributions_with_one_name_are_told(tmp_path, monkeypatch):
    for name in ("left", "right"):
        points = {"epaxos.protocols": {"twice": "x:Y"}, "epaxos.topologies": {"twin": "x:Y"}}
        distribution(tmp_path, name, points)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"left 1\.0 and of right 1\.0; uninstall one"):
        find_protocol("twice")
    with pytest.raises(topology.TopologyError, match=r"left 1\.0 and of right 1\.0"):
        topology.find("twin")


def test_a_module_in_the_current_directory_is_found(tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text("from epaxos.registry import find_protocol\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    made = 'def make():\n    return find_protocol("epaxos")\n'
    (tmp_path / "beside.py").write_text(f"from epaxos.registry import find_protocol\n{made}")
    assert find_protocol("beside:make").title == "EPaxos"


BROKEN = """
from dataclasses import replace
import msgspec
from epaxos.registry import find_protocol
SPEC = find_protocol("epaxos")
class Low(msgspec.Struct, frozen=True, array_like=True, tag=3):
    slot: int
class Untagged(msgspec.Struct):
    slot: int
LOW = replace(SPEC, records=(Low,))
TWICE = replace(SPEC, messages=(*SPEC.messages, Low))
UNTAGGED = replace(SPEC, messages=(Untagged,))
NOTHING = replace(SPEC, messages=())
TEXT = "epaxos"
def raises():
    raise OSError("no")
class Half:
    apply = answer = None
"""


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_such_module:SPEC", "there is no module no_such_module; start in the directory"),
        ("broken_parts:SPECK", "the module broken_parts has no SPECK"),
        ("broken_parts:TEXT", "it is a str, not a ProtocolSpec"),
        ("broken_parts:raises", "what makes it raises OSError: no"),
        ("broken_parts:LOW", "records: Low must be an array_like struct with tag=16 or more"),
        ("broken_parts:UNTAGGED", "messages: Untagged must be an array_like struct with tag=0"),
        ("broken_parts:TWICE", "and Low have one tag, 3"),
        ("broken_parts:NOTHING", "messages: there is none"),
        ("raft", "choose one of epaxos, multipaxos, or write package.module:NAME"),
        ("needs_more:SPEC", "needs_more cannot be imported: No module named 'no_such_thing'"),
        ("ill:SPEC", "ill cannot be imported: SyntaxError"),
    ],
)
def test_what_is_no_protocol_says_why(name, sentence, tmp_path, monkeypatch):
    (tmp_path / "broken_parts.py").write_text(BROKEN)
    (tmp_path / "needs_more.py").write_text("import no_such_thing\n")
    (tmp_path / "ill.py").write_text("def\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        find_protocol(name)


def test_what_is_no_state_machine_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken_parts.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    for place, sentence in (
        ("Half", "write package.module:CLASS"),
        ("broken_parts:Half", "it lacks __len__"),
        ("broken_parts:TEXT", "it lacks apply"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            find_state_machine(place)


# The protocol -----------------------------------------------------------------------------------


def unanimous(seed, spec=None, node=None, **changes):
    options = replace(draw(seed, "unanimous:SPEC"), **changes)
    return tell(options, spec) if node is None else tell(options, spec, node)


def test_the_protocol_of_the_docs_stands_every_fault_that_it_survives(examples):
    crashes = 0
    for seed in range(1, 25):
        outcome = unanimous(seed, deep=seed % 3 == 0)
        assert isinstance(outcome, CleanRun), f"seed {seed}: {outcome.property}: {outcome.detail}"
        assert outcome.answered
        crashes += outcome.counts["crashes"]
    assert crashes > 10


def test_a_bug_in_it_is_caught_and_told_shortly(examples, tmp_path, monkeypatch, capsys):
    path = planted(tmp_path, "Careless", "UnanimousReplica")
    wanted = ["sim", "run", "--protocol", "unanimous:SPEC", "--plant", str(path)]
    code = run([*wanted, "--seeds", "1", "--jobs", "1", "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    assert code == ExitCode.FAILED
    assert "Ask A.1" in shown
    assert "in one order at all replicas" in shown or "in the other's deps" in shown
    assert int(re.search(r"(\d+) events remain", shown)[1]) < 20
    assert (tmp_path / "test_unanimous_SPEC_1.py").exists()


def test_its_own_invariants_bite(examples):
    from unanimous import SPEC, Agree, Instance, UnanimousReplica

    class Forgetful(UnanimousReplica):
        """Agrees before it has written anything down."""

        def _on_ask(self, source, message):
            known = Instance(self._answer(message), message.payload)
            self._keep(message.replica, message.slot, known)
            self.out.send(source, Agree(message.replica, message.slot, known.deps))

    class Fickle(UnanimousReplica):
        """Changes the deps of what is decided."""

        def _on_agree(self, source, message, now):
            super()._on_agree(source, message, now)
            mine = self.instances[self.me].get(message.slot)
            if mine is not None and mine.decided:
                mine.deps = tuple(map(max, mine.deps, message.deps))
                mine.deps = (*mine.deps[: self.me], 0, *mine.deps[self.me + 1 :])

    found = {}
    for kind in (Forgetful, Fickle):
        spec = replace(SPEC, replica=kind)
        results = [unanimous(seed, spec, deep=True, memory=False) for seed in range(1, 13)]
        found[kind] = {each.property for each in results if isinstance(each, Failure)}
    assert checkers.REMEMBERED in found[Forgetful]
    assert checkers.INVARIANT in found[Fickle]


def test_no_more_are_lost_than_a_protocol_survives(examples):
    lost = []
    for survived in (0, 1):
        spec = replace(find_protocol("multipaxos"), survives=lambda n, most=survived: most)
        total = 0
        for seed in range(1, 9):
            drawn = draw(seed, "multipaxos", replicas=(5,))
            faults = replace(drawn.faults, dead=0, swapped=2)
            outcome = simulate(replace(drawn, faults=faults, rest=2, memory=False), spec)
            total += outcome.counts["refused_starts"]
        lost.append(total)
    assert lost[0] == 0 < lost[1]


def test_a_comparison_shows_no_optimum_of_it(examples, tmp_path, capfd):
    wanted = ["compare", "--simulated", "--topology", "equidistant:3,20", "--leader", "R1"]
    wanted += ["--protocols", "unanimous:SPEC,epaxos,multipaxos", "--conflicts", "0"]
    code = run([*wanted, "--duration", "2", "--rate", "20", "--out", str(tmp_path), "--json"])
    document = msgspec.json.decode(capfd.readouterr().out)
    assert code == ExitCode.OK
    labels = [each["label"] for each in document["runs"]]
    assert labels == ["Unanimous", "EPaxos", "MP @R1"]
    optima = {c["run"]: c["optimum"]["fast_ms"] for c in document["phases"][0]["cells"]}
    assert optima["unanimous"] is None
    assert optima["epaxos"] > 20
    (report,) = tmp_path.glob("*/report.html")
    assert "Unanimous" in report.read_text()


def test_one_protocol_under_two_names_is_not_compared_with_itself(examples, installed, capsys):
    code = run(["compare", "--simulated", "--protocols", "unanimous,unanimous:SPEC"])
    assert code == ExitCode.CONFIG
    assert "named twice" in capsys.readouterr().err


def test_small_worlds_are_of_this_package(examples, capsys):
    assert run(["explore", "--protocol", "unanimous:SPEC"]) == ExitCode.CONFIG
    assert "epaxos or multipaxos" in capsys.readouterr().err


# The state machine ------------------------------------------------------------------------------


def batch(*commands):
    operations, keys, arguments = zip(*commands)
    return Payload.of(Batch(0, 1, bytes(operations), list(keys), list(arguments)))


def test_the_state_machine_of_the_docs_counts(examples):
    machine = find_state_machine("counters:Counters")()
    put, get = Operation.PUT, Operation.GET
    first = batch((put, b"x", b"5"), (put, b"y", b"many"), (get, b"x", b""), (get, b"z", b""))
    results = machine.answer(Decided(0, 1, (), first, Path.FAST))
    assert results.values == [b"", b"", b"5", b""]
    assert list(results.statuses) == [Status.OK, Status.OK, Status.OK, Status.MISSING]
    machine.apply(Decided(1, 1, (), batch((put, b"x", b"7")), Path.LEARNED))
    machine.apply(Decided(1, 2, (), None, Path.LEARNED))
    read = batch((get, b"x", b""), (Operation.DELETE, b"y", b""))
    assert machine.answer(Decided(0, 2, (), read, Path.FAST)).values == [b"12", b""]
    assert len(machine) == 1


@pytest.mark.parametrize("protocol", ["epaxos", "multipaxos", "unanimous:SPEC"])
def test_a_state_machine_from_outside_runs_in_the_simulator(examples, protocol):
    profile = Profile(protocol, state_machine="counters:Counters")
    for seed in range(1, 6):
        outcome = run_seed(profile, seed)
        assert isinstance(outcome, CleanRun), f"seed {seed}: {outcome.property}: {outcome.detail}"


def test_a_state_machine_that_counts_across_keys_is_caught(examples, tmp_path, monkeypatch):
    planted(tmp_path, "Ranks", "Counters")
    monkeypatch.syspath_prepend(str(tmp_path))
    profile = Profile("epaxos", faults=frozenset(), state_machine="ranks:Ranks")
    results = [run_seed(profile, seed) for seed in range(1, 20)]
    assert checkers.CONVERGES in {each.property for each in results if isinstance(each, Failure)}


def test_a_key_value_store_that_answers_wrongly_is_still_caught():
    from epaxos.execution.store import Store
    from epaxos.node.node import node_with

    class Stale(Store):
        """Removes nothing."""

        def _run(self, decided):
            before = dict(self._table)
            results = super()._run(decided)
            self._table.update({k: v for k, v in before.items() if k not in self._table})
            return results

    results = [tell(replace(draw(seed), keys=1), None, node_with(Stale)) for seed in range(1, 20)]
    assert checkers.LINEARIZABLE in {each.property for each in results if isinstance(each, Failure)}
