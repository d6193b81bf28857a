"""What an experiment is: trials that differ in what is swept, repeated and interleaved.

    [experiment]
    name = "conflicts"
    title = "What conflicts cost"
    repeats = 3                            # each with a seed of its own
    seed = 1                               # of the first repeat

    [trial]                                # keys of bench.trials.trial.Trial
    protocol = ["epaxos", "multipaxos"]    # a list is swept
    workload = ["conflict:0", "conflict:2", "conflict:100"]
    rate = 100                             # anything else is fixed
    simulated = true

    [[case]]                               # optional, any number: what is different in this part
    replicas = 3

All combinations of what is swept are run; with cases, all combinations of each case over `[trial]`.
Where a value itself is a list (`faults`, `client_regions`), a list of lists is swept.

The repeats are the outermost loop, and in each the configurations come in another order, so that
what the machine does meanwhile meets all alike. All configurations of a repeat share its seed.

Rules of this file: it says what is run, in which order, and runs nothing itself; whatever is wrong
with a file is told with the file, the key, and what may stand there.
"""

import asyncio
import difflib
import random
import threading
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_type_hints

from bench.trials.trial import Trial
from epaxos.core.errors import ConfigError
from epaxos.registry import find_protocol

if TYPE_CHECKING:
    from bench.progress import Watch
    from bench.trials.results import Results
    from bench.trials.sweep import SweepReport

REPEATS: Final = 3
REPEATS_MAX: Final = 1000
TRIALS_MAX: Final = 100_000
OUT: Final = Path("results")
"""Where results go unless another place is named."""
_TABLES: Final = ("experiment", "trial", "case")
_HEADER: Final = ("name", "title", "repeats", "seed")
_NAME_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


class Experiment:
    """A sweep. Raises ConfigError.

    From Python every key of a trial is an argument, and a list is swept:
    `Experiment("mine", protocol=["epaxos", "multipaxos"], simulated=True)`."""

    def __init__(
        self,
        name: str,
        *,
        title: str = "",
        repeats: int = REPEATS,
        seed: int = 1,
        cases: Sequence[Mapping[str, Any]] = (),
        source: str = "",
        **trial: Any,
    ) -> None:
        self.name = name
        self.title = title or name
        self.repeats = repeats
        self.seed = seed
        self._trial = trial
        self._cases = [dict(case) for case in cases]
        self._source = source or f"experiment {name}"
        self._check_header()
        self.configurations: tuple[Trial, ...] = tuple(self._expand())
        """What is run in each repeat, with the seed of the first; each once."""
        if len(self.configurations) * repeats > TRIALS_MAX:
            raise self._error(
                f"{len(self.configurations):,} configurations with {repeats:,} repeats are more "
                f"than {TRIALS_MAX:,} trials; sweep less"
            )

    @classmethod
    def load(cls, what: str | Path) -> "Experiment":
        """From a TOML file, or one of the built-in ones by name. Raises ConfigError."""
        text = str(what)
        if not text.endswith(".toml"):
            place = files("bench").joinpath("experiments", f"{text}.toml")
            if text not in built_in():
                raise ConfigError(
                    f"there is no experiment {text!r}{_suggest(text, built_in())}; choose one of "
                    f"{', '.join(built_in())}, or name a file that ends in .toml"
                )
            return cls._parse(place.read_text("utf-8"), text, None)
        path = Path(text)
        try:
            document = path.read_text("utf-8-sig")  # editors of Windows begin with a mark
        except (OSError, UnicodeDecodeError) as error:
            said = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(f"experiment {path}: {said}") from None
        return cls._parse(document, text, path.parent)

    @classmethod
    def _parse(cls, text: str, source: str, beside: Path | None) -> "Experiment":
        try:
            document = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # also numbers and depths that Python refuses
            raise ConfigError(f"{source} is not TOML: {error}") from None
        _known(source, "table", document, _TABLES)
        header = _table(source, document, "experiment")
        _known(source, "[experiment] key", header, _HEADER)
        if "name" not in header:
            raise ConfigError(f'{source}: [experiment] has no name; write name = "my-experiment"')
        trial = _table(source, document, "trial")
        cases = document.get("case", [])
        if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
            raise ConfigError(f"{source}: write [[case]] with two brackets; there may be several")
        if "seed" in trial:
            raise ConfigError(
                f"{source}: [trial] has a seed; it belongs in [experiment], every repeat gets its "
                "own"
            )
        for table in (trial, *cases):
            if beside is not None and "topology" in table:
                table["topology"] = _beside(beside, table["topology"])
        return cls(**{**header, "cases": cases, "source": source}, **_safe(source, trial))

    def _check_header(self) -> None:
        if not isinstance(self.name, str) or not self.name or set(self.name) - _NAME_CHARACTERS:
            raise self._error(
                f"name = {self.name!r}: small letters, digits, - and _, because directories are "
                "named after it"
            )
        if not isinstance(self.title, str):
            raise self._error(f"title = {self.title!r} is not a text")
        for key, low, high in (("repeats", 1, REPEATS_MAX), ("seed", 0, 2**31)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise self._error(f"{key} = {value!r} must be a number from {low:,} to {high:,}")

    def _error(self, said: str) -> ConfigError:
        return ConfigError(f"{self._source}: {said}")

    def _expand(self) -> Iterator[Trial]:
        """All combinations, each once: a leader matters only to protocols that have one, and may
        be best and worst at once."""
        seen = set[tuple[Trial, int | None]]()
        common = self._sweeps("[trial]", self._trial)
        parts = [(f"[[case]] {number}", case) for number, case in enumerate(self._cases, 1)]
        for where, case in parts or [("[trial]", {})]:
            swept = {**common, **self._sweeps(where, case)}
            for values in product(*swept.values()):
                trial = self._make(where, dict(zip(swept, values)))
                once = replace(trial, leader=_default("leader")), trial.leader_index
                if once not in seen:
                    seen.add(once)
                    yield trial

    def _sweeps(self, where: str, table: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Key -> all its values."""
        kinds = _kinds()
        _known(self._source, f"{where} key", table, tuple(kinds))
        found: dict[str, list[Any]] = {}
        for key, value in table.items():
            kind = kinds[key]
            at = f"{where} {key}"
            if kind.plural:
                swept = isinstance(value, list | tuple) and any(
                    isinstance(each, list | tuple) for each in value
                )
            else:
                swept = isinstance(value, list | tuple)
            values = list(value) if swept else [value]
            if not values:
                raise self._error(f"{at} = [] sweeps over nothing; write {kind.example}")
            found[key] = [self._value(at, each, kind) for each in values]
            twice = [each for each in found[key] if found[key].count(each) > 1]
            if twice:
                raise self._error(f"{at} names {twice[0]!r} twice")
        return found

    def _value(self, at: str, value: Any, kind: "_Kind") -> Any:
        if not kind.accepts(value):
            raise self._error(f"{at} = {value!r} is not {kind.title}; write {kind.example}")
        if kind.plural:
            return tuple(value)
        try:
            return float(value) if kind.of is float else value
        except OverflowError:
            raise self._error(f"{at} = {str(value)[:40]}… is too large") from None

    def _make(self, where: str, values: dict[str, Any]) -> Trial:
        """One configuration. Raises ConfigError that names the file."""
        try:
            trial = Trial(seed=self.seed, **values)
            if not find_protocol(trial.protocol).has_leader:
                trial = replace(trial, leader=_default("leader"))
        except ConfigError as error:
            raise self._error(f"{where} {error}") from None
        return trial

    def trials(self) -> list[Trial]:
        """Everything that is run, in order."""
        found: list[Trial] = []
        for number in range(self.repeats):
            order = [replace(each, seed=self.seed + number) for each in self.configurations]
            random.Random(f"{self.seed} order {number}").shuffle(order)
            found += order
        return found

    def document(self) -> dict[str, Any]:
        """What would be written in a file of it."""
        return {
            "experiment": {key: getattr(self, key) for key in _HEADER},
            "trial": self._trial,
            "case": self._cases,
        }

    def repeated(self, repeats: int) -> "Experiment":
        """The same with so many repeats. Raises ConfigError."""
        return Experiment(
            self.name,
            title=self.title,
            repeats=repeats,
            seed=self.seed,
            cases=self._cases,
            source=self._source,
            **self._trial,
        )

    def run(
        self,
        *,
        out: str | Path = OUT,
        jobs: int | None = None,
        dask: str = "",
        watch: "Watch[SweepReport] | None" = None,
    ) -> "Results":
        """Run what is not in the store yet, and write a new directory of results below `out`.

        `jobs`: processes that share the simulated trials, by default one per core; `dask`: the
        address of a scheduler for them instead. Real processes run one trial after another. Raises
        ConfigError, StorageError, AddressError; a trial that fails is told in the results."""
        return self._run(out, jobs, dask, watch, threading.Event())

    async def run_async(
        self,
        *,
        out: str | Path = OUT,
        jobs: int | None = None,
        dask: str = "",
        watch: "Watch[SweepReport] | None" = None,
    ) -> "Results":
        """Like `run`, beside the event loop. A cancelled one ends, leaves no process, and keeps
        what is finished."""
        stop = threading.Event()
        work = asyncio.create_task(asyncio.to_thread(self._run, out, jobs, dask, watch, stop))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([work])
            raise

    def _run(
        self,
        out: str | Path,
        jobs: int | None,
        dask: str,
        watch: "Watch[SweepReport] | None",
        stop: threading.Event,
    ) -> "Results":
        from bench.progress import ignore
        from bench.trials.executors import choose
        from bench.trials.sweep import run_sweep
        from bench.workers import cores

        executor = choose(cores() if jobs is None else jobs, dask)
        return run_sweep(self, Path(out), executor, watch or ignore, stop)


def built_in() -> list[str]:
    """Names of the experiments that come with us."""
    found = files("bench").joinpath("experiments").iterdir()
    return sorted(each.name.removesuffix(".toml") for each in found if each.name.endswith(".toml"))


# What a key may hold ----------------------------------------------------------------------------


class _Kind:
    """What one key of a trial may hold."""

    def __init__(self, hint: Any, default: Any) -> None:
        self.plural = isinstance(default, tuple)
        self.of: type = str if self.plural else int if default is None else type(default)
        if hint is float:
            self.of = float
        title, example = _WORDS[tuple if self.plural else self.of]
        self.title = title
        self.example = example

    def accepts(self, value: Any) -> bool:
        """Whether a value from TOML, or from Python, is of this kind."""
        if self.plural:
            return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
        if self.of is bool or isinstance(value, bool):
            return self.of is bool and isinstance(value, bool)
        return isinstance(value, (int, float) if self.of is float else self.of)


_WORDS: Final[dict[type, tuple[str, str]]] = {
    str: ("a text", 'a text, or a list like ["one", "other"] to sweep over'),
    int: ("a whole number", "a whole number, or a list like [3, 5] to sweep over"),
    float: ("a number", "a number, or a list like [50, 100] to sweep over"),
    bool: ("true or false", "true, false, or [true, false] to sweep over"),
    tuple: (
        "a list of texts",
        'a list like ["crash:Tokyo@3-6"], or a list of such lists to sweep over',
    ),
}


@cache
def _kinds() -> dict[str, _Kind]:
    """Every key but the seed, which belongs to the experiment."""
    hints = get_type_hints(Trial)
    return {
        field.name: _Kind(hints[field.name], field.default)
        for field in fields(Trial)
        if field.name != "seed"
    }


def _default(name: str) -> Any:
    return next(field.default for field in fields(Trial) if field.name == name)


def _table(source: str, document: dict[str, Any], name: str) -> dict[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{source}: {name} is not a table; write [{name}] above its keys")
    return dict(table)


def _known(source: str, what: str, table: Mapping[str, Any], names: Sequence[str]) -> None:
    for key in table:
        if key not in names:
            raise ConfigError(
                f"{source}: {what} {key!r} is unknown{_suggest(key, names)}; there are "
                f"{', '.join(names)}"
            )


def _safe(source: str, trial: dict[str, Any]) -> dict[str, Any]:
    """The keys of `[trial]`, none of which is an argument of Experiment by another meaning."""
    _known(source, "[trial] key", trial, tuple(_kinds()))
    return trial


def _suggest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _beside(place: Path, value: Any) -> Any:
    """Topology files of an experiment are found from where it stands."""
    if isinstance(value, list):
        return [_beside(place, each) for each in value]
    if isinstance(value, str) and (
        value.partition(":")[0].endswith((".toml", ".csv", ".conf"))
        or ("/" in value and (place / value.partition(":")[0]).is_dir())
    ):
        return str(place / value)
    return value
