"""The results of an experiment: what a notebook, a table, a report and a comparison read.

    results = Experiment.load("quick").run()        # or Results.load("results/2026-…-quick")
    results.records()                               # a dict per configuration and region
    results.samples()                               # a dict per measured command
    results.table()                                 # text, HTML in a notebook
    results.plot.cdf(by="region")                   # a matplotlib figure
    results.diff(other)                             # which differences are significant

`polars.DataFrame(results.records())` and `pandas.DataFrame(results.records())` just work.

Rules of this file: it reads a directory that sweep.py wrote, and nothing else; what is damaged is
named.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from msgspec import to_builtins

from bench.analysis.statistics import PERCENTS, WHY_NONE, field_of, levels
from bench.analysis.units import ms
from bench.trials.cells import Cell, Configuration, gather, swept_keys, worst
from bench.trials.store import StoredTrial, read
from epaxos.core.errors import ConfigError
from epaxos.core.replica import Path as CommitPath

if TYPE_CHECKING:
    from bench.trials.differences import Differences
    from bench.trials.plots import Plots

MANIFEST: Final = "experiment.json"
FORMAT: Final = 1
"""Changes whenever a reader of experiment.json could misread it."""
_REASONS_MAX: Final = 20


@dataclass(frozen=True)
class Table:
    """Rows for people. A heading that begins with `>` is that of a column of numbers."""

    headings: list[str]
    rows: list[list[str]]
    title: str = ""
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        names = [heading.removeprefix(">") for heading in self.headings]
        lines = [names, *self.rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(names))]
        right = [heading.startswith(">") for heading in self.headings]
        text = [
            "  ".join(
                each.rjust(width) if number else each.ljust(width)
                for each, width, number in zip(line, widths, right)
            ).rstrip()
            for line in lines
        ]
        rule = "─" * max(map(len, text))
        return "\n".join([*filter(None, [self.title]), text[0], rule, *text[1:], *self.notes])

    def _repr_html_(self) -> str:
        """For notebooks."""
        return self.html()

    def html(self) -> str:
        """Everything as HTML, without a style."""
        head = "".join(
            f"<th{'' if heading.startswith('>') else ' class=name'}>"
            f"{escape(heading.removeprefix('>'))}</th>"
            for heading in self.headings
        )
        body = "".join(
            "<tr>"
            + "".join(
                f"<td{'' if heading.startswith('>') else ' class=name'}>{escape(each)}</td>"
                for heading, each in zip(self.headings, row)
            )
            + "</tr>"
            for row in self.rows
        )
        title = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        notes = "".join(f"<p class=note>{escape(note)}</p>" for note in self.notes)
        return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"


class Results:
    """What one run of an experiment gave. Raises ConfigError for what is no directory of results,
    and StorageError, when it is read, for a damaged trial."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        path = directory / MANIFEST
        try:
            self.manifest: dict[str, Any] = orjson.loads(path.read_bytes())
            found = self.manifest["format"]
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
            raise ConfigError(
                f"{directory} holds no results of an experiment ({MANIFEST}); "
                "epaxos experiment list shows those there are"
            ) from None
        if found != FORMAT:
            raise ConfigError(f"{path} has format {found}; this version reads {FORMAT}")
        header = self.manifest["experiment"]
        self.name: str = header["name"]
        self.title: str = header["title"]
        self.seed: int = header["seed"]

    @classmethod
    def load(cls, directory: str | Path) -> "Results":
        """From a directory of results."""
        return cls(Path(directory))

    @cached_property
    def trials(self) -> list[StoredTrial]:
        """The finished trials: configurations in the order of the sweep, repeats within."""
        return [read(self.directory / name) for name in self.manifest["trials"]]

    @cached_property
    def configurations(self) -> list[Configuration]:
        """The trials without their seeds, in the order of the sweep."""
        return gather(self.trials)

    @property
    def swept(self) -> list[str]:
        """The keys that differ between configurations."""
        return swept_keys(self.configurations)

    @cached_property
    def cells(self) -> list[Cell]:
        """Every configuration in every region."""
        return [cell for each in self.configurations for cell in each.cells()]

    def label(self, configuration: Configuration, without: str = "") -> str:
        """What tells it from the others, for people; one key may be told elsewhere."""
        parts = [configuration.label] if self._varied("protocol", "leader") else []
        settings = configuration.settings
        others = [key for key in self.swept if key not in ("protocol", "leader", without)]
        parts += [shown(key, settings[key]) for key in others]
        return " · ".join(parts) or configuration.label

    def _varied(self, *keys: str) -> bool:
        return any(key in self.swept for key in keys)

    @property
    def validity(self) -> str:
        """VALID, SUSPECT or INVALID: the worst of all trials; INVALID if one failed."""
        if self.manifest["failed"] or not self.trials:
            return "INVALID"
        return worst([stored.outcome.validity for stored in self.trials])

    @property
    def reasons(self) -> list[str]:
        """Why not VALID, the same ones together."""
        failed = Counter(each["why"] for each in self.manifest["failed"])
        files = {each["why"]: each["files"] for each in self.manifest["failed"] if each["files"]}
        found = [
            f"{times} trial{'s' if times > 1 else ''} failed: {why}"
            + (f"; see {files[why]}" if why in files else "")
            for why, times in failed.items()
        ]
        counts: Counter[str] = Counter()
        for each in self.configurations:
            at = f"{self.label(each)}: " if len(self.configurations) > 1 else ""
            for repeat in each.repeats:
                counts.update(f"{at}{reason}" for reason in repeat.stored.outcome.reasons)
        found += [f"{why}{f' ({n} repeats)' if n > 1 else ''}" for why, n in counts.items()]
        if len(found) > _REASONS_MAX:
            found = [*found[:_REASONS_MAX], f"and {len(found) - _REASONS_MAX:,} more reasons"]
        return found

    @property
    def histories(self) -> list[tuple[str, dict[str, Any]]]:
        """Of every trial whose calls were kept: which it is, and its verdict."""
        return [
            (f"{self.label(each)}, repeat {number}", to_builtins(repeat.stored.outcome.checked))
            for each in self.configurations
            for number, repeat in enumerate(each.repeats, 1)
            if repeat.stored.outcome.checked is not None
        ]

    @property
    def conditions(self) -> str:
        """What every figure has to say of itself: what was fixed, the repeats, the seed."""
        if not self.configurations:
            return "nothing finished"
        settings = self.configurations[0].settings
        parts = [
            shown(key, settings[key])
            for key in ("topology", "protocol", "workload", "durability", "simulated")
            if key not in self.swept
        ]
        regions = {len(each.first.outcome.sync_us) for each in self.configurations}
        parts.append(f"n={' and '.join(map(str, sorted(regions)))}")
        if not self._varied("rate", "clients"):
            parts.append(_loop(settings))
        if not settings["gate"] and "gate" not in self.swept:
            parts.append("no gate")
        repeats = self.manifest["experiment"]["repeats"]
        parts.append(f"{settings['duration_s']:g} s each")
        parts.append(f"{repeats} repeat{'s' if repeats > 1 else ''}")
        if settings.get("check") and "check" not in self.swept:
            parts.append("history checked")
        return " · ".join([*parts, f"seed {self.seed}"])

    def records(self) -> list[dict[str, Any]]:
        """A flat dict per cell: one configuration in one region, over all repeats."""
        return [
            cell.record(self.seed + number) | {"configuration": self.label(cell.configuration)}
            for number, cell in enumerate(self.cells)
        ]

    def samples(self) -> Iterator[dict[str, Any]]:
        """A flat dict per measured command, in the order of the answers of each trial."""
        for configuration in self.configurations:
            label = self.label(configuration)
            swept = {key: configuration.settings[key] for key in self.swept}
            for repeat in configuration.repeats:
                stored, columns = repeat.stored, repeat.columns
                for region, start_us, commit_us, answer_us, path in zip(*columns.values()):
                    yield {
                        "configuration": label,
                        **swept,
                        "seed": stored.trial["seed"],
                        "region": stored.outcome.regions[region],
                        "start_s": int(start_us) / 1e6,
                        "commit_ms": int(commit_us) / 1000,
                        "answer_ms": int(answer_us) / 1000,
                        "path": CommitPath(int(path)).name.lower(),
                    }

    def table(self) -> Table:
        """A row per cell."""
        keys = [key for key in self.swept if key not in ("protocol", "leader")]
        rows: list[list[str]] = []
        for record, cell in zip(self.records(), self.cells):
            settings = cell.configuration.settings
            low, high = record["answer_p50_low_ms"], record["answer_p50_high_ms"]
            share = record["fast_share"]
            rows.append(
                [
                    cell.configuration.label,
                    *(shown(key, settings[key]) for key in keys),
                    cell.title,
                    ms(record["optimum_ms"]),
                    ms(record["commit_p50_ms"]),
                    ms(record["answer_p50_ms"]),
                    "–" if low is None else f"{low:,.1f} to {high:,.1f}",
                    *(ms(record[f"answer_{field_of(percent)}_ms"]) for percent in PERCENTS[1:]),
                    "" if share is None else f"{share * 100:.1f} %",
                    f"{record['answered']:,} of {record['sent']:,}",
                    "" if record["validity"] == "VALID" else record["validity"],
                ]
            )
        why = [WHY_NONE] if any("–" in row for row in rows) else []
        repeats = max((len(each.repeats) for each in self.configurations), default=1)
        return Table(
            [
                "protocol",
                *keys,
                "region",
                ">optimum",
                ">commit p50",
                ">answer p50",
                ">95 %",
                *(f">p{percent:g}" for percent in PERCENTS[1:]),
                ">fast",
                ">answered",
                "",
            ],
            rows,
            self.title,
            [*why, self.conditions, f"times in ms; intervals over {levels(repeats)}"],
        )

    @property
    def plot(self) -> "Plots":
        """Figures."""
        from bench.trials.plots import Plots

        return Plots(self)

    def diff(self, other: "Results") -> "Differences":
        """What `other` has more of, cell by cell."""
        from bench.trials.differences import compare_results

        return compare_results(self, other)


def shown(key: str, value: Any) -> str:
    """One setting, for people."""
    if key == "protocol":
        return str(value)
    words = {
        "simulated": ("real processes", "virtual time"),
        "gate": ("no gate", "gate"),
        "jitter": ("no jitter", "jitter"),
    }
    units = {
        "rate": "{:g}/s",
        "clients": "{} clients",
        "replicas": "n={}",
        "duration_s": "{:g} s",
        "warmup_s": "{:g} s of warm-up",
        "patience_s": "{:g} s of patience",
        "sync_ms": "syncs of {:g} ms",
        "batch_commands": "batches of {}",
    }
    if key in words:
        return words[key][bool(value)]
    if key == "topology":
        return Path(str(value)).stem if str(value).endswith(".toml") else str(value)
    if isinstance(value, list | tuple):
        return " ".join(value) or f"no {key.replace('_', ' ')}"
    if value is None:
        return "all regions"
    return units[key].format(value) if key in units else str(value)


def _loop(settings: dict[str, Any]) -> str:
    if settings["rate"]:
        return f"open loop, {settings['rate']:g} commands/s per region"
    return f"closed loop, {settings['clients']} clients per region"
