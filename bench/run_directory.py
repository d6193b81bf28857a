"""Results on disk: a directory per run that is never written over.

results/2026-11-23-1507-compare/
  summary.json     every figure and the verdict
  manifest.json    what is needed to repeat it: command line, seed, versions, machine
  samples.jsonl    one answered command per line
  report.html      the same for eyes
  replicas/        the clusters' settings and logs; none in virtual time
"""

import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console

import epaxos
from epaxos.core.errors import ConfigError

_PACKAGES: Final = ("msgspec", "orjson", "aiohttp", "uvloop", "hdrhistogram", "numpy")
_INDENTED: Final = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


def make_directory(parent: Path, kind: str, now: datetime) -> Path:
    """A new directory `<parent>/<date>-<time>-<kind>[-n]`. Raises ConfigError."""
    stem = f"{now:%Y-%m-%d-%H%M}-{kind}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 1000):
            path = parent / (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path
    except OSError as error:
        raise ConfigError(
            f"--out {parent}: {error.strerror}; name a directory that can be written"
        ) from None
    raise ConfigError(f"--out {parent}: there are a thousand results of this minute; name another")


@contextmanager
def measuring(directory: Path, remarks: Console) -> Iterator[Path]:
    """The place of clusters' files below a run's directory, for as long as they run. At the end
    the data of replicas goes, settings and logs stay. After Ctrl-C nothing stays."""
    replicas = directory / "replicas"
    try:
        yield replicas
    except KeyboardInterrupt:
        shutil.rmtree(directory, ignore_errors=True)
        remarks.print("stopped; nothing was kept")
        raise
    finally:
        sweep(replicas)


def manifest(begun: datetime) -> dict[str, Any]:
    """What is needed to repeat a run that ends now, and to know where it ran."""
    return {
        "begun": begun.astimezone().isoformat(timespec="seconds"),
        "ended": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command_line": shlex.join(["epaxos", *sys.argv[1:]]),
        **versions(),
        "machine": machine(),
    }


def versions() -> dict[str, Any]:
    """Of us, of Python, and of the packages that figures depend on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "version": epaxos.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": found,
    }


def machine() -> dict[str, Any]:
    """Where it ran, as far as figures depend on it."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if sys.platform != "win32"
        else None,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write_json(path: Path, document: dict[str, Any]) -> None:
    """An indented document."""
    path.write_bytes(orjson.dumps(document, option=_INDENTED | orjson.OPT_SERIALIZE_NUMPY))


def sweep(replicas: Path) -> None:
    """Take away the data of replicas that have ended; their settings and logs stay."""
    for data in (*replicas.glob("data-*"), *replicas.glob("*/data-*")):
        shutil.rmtree(data, ignore_errors=True)
    for name in ("load.json", "load-result.json"):
        for left in replicas.glob(f"*/{name}"):
            left.unlink(missing_ok=True)
