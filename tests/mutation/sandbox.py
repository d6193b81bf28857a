"""A copy of the committed tree, and processes in which one module of it is damaged.

The damage exists only in the memory of a forked child: a function gets other code, or, where no
function is damaged, an import hook gives another module. Nothing is written to the checkout. The
parent has imported everything, so that a child starts at once.

Rules of this file: a child says what killed its mutant as one line on a pipe. If it goes on for too
long it is ended by a limit on processor time, which a busy machine does not use up; what is ended
for any other reason than its own running on counts for nothing.
"""

import importlib.machinery
import importlib.util
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from types import CodeType, FunctionType
from typing import NamedTuple

import pytest

from tests.mutation.mutators import Mutant
from tests.mutation.plan import Target

ROOT = Path(__file__).resolve().parents[2]
_OURS = ("epaxos", "bench", "topology")
_WALL_FACTOR = 40
"""Time a child may take per second of its processor time."""


class Verdict(NamedTuple):
    """What became of a mutant."""

    outcome: str
    """killed, timeout (killed by running on), survived, or undecided: the machine was too busy."""
    by: str
    """The test, or the seed."""
    cpu_s: float


def copy_tree(commit: str = "HEAD") -> tempfile.TemporaryDirectory[str]:
    """The committed tree in a new directory outside the checkout."""
    holder = tempfile.TemporaryDirectory(prefix="mutation-")
    archive = subprocess.run(
        ["git", "archive", commit], cwd=ROOT, check=True, capture_output=True, timeout=120
    )
    subprocess.run(["tar", "-x", "-C", holder.name], input=archive.stdout, check=True, timeout=120)
    return holder


def move_into(tree: Path, targets: Sequence[Target]) -> None:
    """Import everything that the tests of these targets need, from the copy. For the whole life of
    this process; children inherit it."""
    os.chdir(tree)
    _forget_ours(tree)
    names = dict.fromkeys(name for target in targets for name in _files(tree, target))
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        code = pytest.main([*_arguments(tree), "--collect-only", *names])
    if code != pytest.ExitCode.OK:
        raise RuntimeError(f"collecting the tests ended with {int(code)}")
    if any(target.protocols for target in targets):
        importlib.import_module("epaxos.sim.run")


def judge(tree: Path, target: Target, mutant: Mutant | None, seeds: int, limit_s: float) -> Verdict:
    """Run everything against one mutant, or against the module as it is, until something fails."""
    reading, writing = os.pipe()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _live(tree, target, mutant, seeds, limit_s, writing)
    os.close(writing)
    said, signalled = _hear(reading, child, limit_s * _WALL_FACTOR)
    os.close(reading)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if said:
        return Verdict("survived" if said == "-" else "killed", said, used)
    if signalled == signal.SIGXCPU:
        return Verdict("timeout", f"{limit_s:.0f} s of processor time", used)
    if signalled == signal.SIGKILL:
        return Verdict("undecided", "no verdict in time", used)
    return Verdict("killed", f"ended without a word, signal {signalled}", used)


def _hear(reading: int, child: int, patience_s: float) -> tuple[str, int]:
    """The child's line, and by which signal it ended; we end it if it says nothing for so long."""
    said = b""
    end = time.monotonic() + patience_s
    try:
        while time.monotonic() < end and not said.endswith(b"\n"):
            if select.select([reading], [], [], 1.0)[0]:
                piece = os.read(reading, 65536)
                if not piece:
                    break
                said += piece
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    return said.decode().strip(), os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _live(
    tree: Path, target: Target, mutant: Mutant | None, seeds: int, limit_s: float, writing: int
) -> None:
    """The life of a child. Never returns."""
    said = "?"
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (round(limit_s), round(limit_s) + 5))
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        if mutant is not None and not _patch(mutant):
            _forget_ours(tree)
            sys.meta_path.insert(0, _Damage(tree, mutant))
        said = _first_failure(tree, target, seeds) or "-"
    except BaseException as error:  # whatever it is, the mutant caused it
        said = f"{type(error).__name__}: {error} {traceback.format_tb(error.__traceback__)[-1]}"
    line = " ".join(said.split())[:400]
    os.write(writing, line.encode() + b"\n")
    os._exit(0)


def _forget_ours(tree: Path) -> None:
    """Import our modules and tests from the copy from now on."""
    homes = (str(tree), *(str(ROOT / name) for name in (*_OURS, "tests")))
    for name, module in [*sys.modules.items()]:
        home = getattr(module, "__file__", None) or ""
        if name.partition(".")[0] in (*_OURS, "tests") or home.startswith(homes):
            del sys.modules[name]
    sys.path[:] = [str(tree), *(each for each in sys.path if Path(each or ".").resolve() != ROOT)]
    importlib.invalidate_caches()


def _patch(mutant: Mutant) -> bool:
    """Give the function that is damaged its new code, where it is a function."""
    place: object = sys.modules.get(mutant.module.removesuffix(".py").replace("/", "."))
    names: list[str] = []
    for name in filter(None, mutant.owner.split(".")):
        place = vars(place).get(name)
        place = getattr(place, "__func__", place)
        names.append(name)
        if not isinstance(place, type):
            break
    if not isinstance(place, FunctionType):
        return False
    codes = [compile(mutant.damaged(), place.__code__.co_filename, "exec")]
    for code in codes:
        if code.co_qualname == ".".join(names):
            place.__code__ = code
            return True
        codes += [each for each in code.co_consts if isinstance(each, CodeType)]
    return False


def _arguments(tree: Path) -> list[str]:
    quiet = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", "pyproject.toml"]
    return [*quiet, "--rootdir", str(tree), "-W", "ignore::pytest.PytestAssertRewriteWarning"]


def _files(tree: Path, target: Target) -> list[str]:
    return [name for name in target.files() if (tree / name).exists()]


def _first_failure(tree: Path, target: Target, seeds: int) -> str:
    watch = _Watch()
    code = pytest.main([*_arguments(tree), *_files(tree, target)], plugins=[watch])
    if code != pytest.ExitCode.OK:
        return watch.failed or f"pytest ended with {int(code)}"
    from epaxos.sim.options import draw
    from epaxos.sim.run import simulate

    for protocol in target.protocols:
        for seed in range(seeds):
            try:
                simulate(draw(seed, protocol))
            except Exception as error:
                return f"{protocol} seed {seed}: {type(error).__name__}: {error}"
    return ""


class _Watch:
    """Remembers the first test that failed."""

    def __init__(self) -> None:
        self.failed = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.failed:
            self.failed = f"{report.nodeid} (import)"


class _Damage(importlib.machinery.SourceFileLoader):
    """Finder and loader of the damaged module."""

    def __init__(self, tree: Path, mutant: Mutant) -> None:
        name = mutant.module.removesuffix(".py").replace("/", ".")
        super().__init__(name, str(tree / mutant.module))
        self._mutant = mutant

    def find_spec(
        self, name: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def get_code(self, fullname: str) -> object:
        return compile(self._mutant.damaged(), self.path, "exec")
