"""A floor imports only lower floors; the contracts stand in pyproject.toml."""

import subprocess
import sys
import tomllib
from pathlib import Path

from tests.house.sources import ROOT, modules, named


def lint(directory):
    """Run the contracts of a directory's pyproject.toml on the packages below it."""
    script = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_contracts_are_kept():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_contracts_bite(tmp_path):
    # The same contracts over a copy in which the deepest floor asks for a clock and for a map.
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    assert len(contracts) >= 4
    for path in [ROOT / "pyproject.toml", *modules("epaxos", "topology", "bench")]:
        target = tmp_path / named(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    quorum = tmp_path / "epaxos" / "core" / "quorum.py"
    quorum.write_text(
        quorum.read_text(encoding="utf-8") + "\nimport time\nimport topology\n",
        encoding="utf-8",
    )
    done = lint(tmp_path)
    assert done.returncode != 0
    assert f"Contracts: {len(contracts) - 2} kept, 2 broken." in done.stdout, done.stdout


def test_every_module_has_a_floor():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = (
        contract["layers"]
        for contract in contracts
        if contract["name"] == "a floor imports only lower floors"
    )
    placed = {
        word for layer in layers for word in layer.replace("|", " ").replace(":", " ").split()
    }
    found = {
        f"epaxos.{Path(entry).stem}"
        for entry in (ROOT / "epaxos").iterdir()
        if entry.suffix == ".py" or (entry / "__init__.py").exists()
    }
    assert found - {"epaxos.__init__", "epaxos.__main__"} <= placed


def test_no_module_of_bench_hides_one_of_the_standard_library():
    # Locust puts the locustfile's folder first on the path while it reads it.
    found = {entry.stem for entry in (ROOT / "bench").iterdir() if not entry.stem.startswith("_")}
    assert not found & (sys.stdlib_module_names | {"locust"})


def test_every_part_of_the_simulator_has_its_place():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = (
        each["layers"] for each in contracts if each["name"].startswith("inside the simulator")
    )
    placed = {word for layer in layers for word in layer.split() if word != "|"}
    sim = ROOT / "epaxos" / "sim"
    found = {f"epaxos.sim.{path.stem}" for path in sim.glob("*.py")}
    found |= {f"epaxos.sim.schedule.{path.stem}" for path in (sim / "schedule").glob("*.py")}
    found |= {f"epaxos.sim.{folder}" for folder in ("check", "explore", "museum")}
    assert {name for name in found if not name.endswith("__init__")} == placed
