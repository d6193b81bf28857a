"""Figures of any experiment, for notebooks and reports: tails, bars, lines over time.

Rules of this file: it draws what the cells say, in the house's style (bench/drawing/style.py);
figures are returned, nothing is shown or saved here.
"""

from collections.abc import Sequence
from itertools import cycle, islice
from math import ceil
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.drawing.draw import gaps, mark_tail
from bench.drawing.style import (
    EPAXOS,
    FAULT,
    INK,
    MULTIPAXOS,
    MULTIPAXOS_WORST,
    REGION_MARKERS,
    REGIONS,
    Look,
    make,
    styled,
)
from bench.drawing.timeline import median_per_step
from bench.trials.cells import LATENCIES, Cell, Configuration
from epaxos.core.errors import ConfigError

if TYPE_CHECKING:
    from bench.trials.results import Results

SERIES_MAX: Final = 12
"""More lines or bars side by side tell nothing."""
_COLUMNS: Final = 3
_PANEL_IN: Final = (2.35, 1.9)
_LINES: Final = ("-", "--", ":", "-.")
_HATCHES: Final = ("", "///", "...", "xxx", "\\\\\\")
_LEADERS: Final = (
    MULTIPAXOS,
    MULTIPAXOS_WORST,
    *(Look(colour, marker) for colour, marker in zip(REGIONS[3:], REGION_MARKERS[3:])),
)
_GROUP: Final = 0.82
_CHARACTERS_PER_IN: Final = 14
"""Of a legend."""
_BINS: Final = 25
_BIN_MIN_S: Final = 0.25
"""Of a timeline, where nothing else is said."""


class Plots:
    """Figures of one experiment. Each raises ConfigError for what it cannot draw."""

    def __init__(self, results: "Results") -> None:
        self._results = results
        labels = dict.fromkeys(each.label for each in results.configurations)
        others = iter(cycle(_LEADERS))
        self._looks = {name: EPAXOS if name == "EPaxos" else next(others) for name in labels}

    def cdf(
        self,
        by: str = "region",
        latency: str = "answer",
        only: Sequence[Configuration] | None = None,
    ) -> Figure:
        """Share of commands answered within so many ms, its tail on a logarithmic scale: a panel
        per value of `by` (`region`, or a key that is swept), a line per configuration."""
        _one_of("latency", latency, LATENCIES)
        panels = self._panels(by, only)
        with styled():
            figure, axes = _grid(len(panels))
            for place, (title, cells) in zip(axes, panels.items()):
                for name, look, group in self._series(cells, by):
                    self._tail(place, [v for c in group for v in c.values(latency)], look, name)
                _tail_axes(place)
                place.set_title(title, loc="left")
                place.set_xlabel(f"{latency} latency, ms")
            self._finish(figure, axes)
        return figure

    def bars(
        self,
        value: str = "answer_p50_ms",
        by: str = "region",
        only: Sequence[Configuration] | None = None,
    ) -> Figure:
        """A figure of the records: groups per region, a bar per configuration; whiskers are the
        95 % interval of a median, ticks the closed-form optimum. `by` other than `region`: a panel
        per value of that key."""
        with styled():
            panels = {"": self._cells(only)} if by == "region" else self._panels(by, only)
            figure, axes = _grid(len(panels), columns=1 if by == "region" else 2, width_in=3.5)
            for place, (title, cells) in zip(axes, panels.items()):
                self._bars(place, cells, value, by)
                place.set_title(title, loc="left")
            self._finish(figure, axes)
        return figure

    def timeline(
        self,
        latency: str = "answer",
        bin_s: float | None = None,
        only: Sequence[Configuration] | None = None,
    ) -> Figure:
        """What happened when: per configuration the median latency and the answered commands per
        second of each region, by intended start; faults are shades."""
        _one_of("latency", latency, LATENCIES)
        chosen = self._chosen(only)
        with styled():
            figure = make(max(3.33, _PANEL_IN[0] * min(len(chosen), _COLUMNS) * 1.3), 3.2)
            axes = figure.subplots(2, len(chosen), sharex=True, sharey="row", squeeze=False)
            for column, configuration in enumerate(chosen):
                self._timeline(axes[:, column], configuration, latency, bin_s)
                axes[0, column].set_title(self._results.label(configuration), loc="left")
                axes[1, column].set_xlabel("measured s")
            axes[0, 0].set_ylabel(f"{latency} p50, ms")
            axes[1, 0].set_ylabel("answered/s")
            for row in axes[:, 0]:  # shared by all columns
                row.set_ylim(bottom=0)
            self._finish(figure, [axes[0, 0]])
        return figure

    # Parts ---------------------------------------------------------------------------------------

    def _chosen(self, only: Sequence[Configuration] | None) -> list[Configuration]:
        chosen = list(self._results.configurations if only is None else only)
        if not chosen:
            raise ConfigError("nothing finished, so there is nothing to draw")
        if len(chosen) > SERIES_MAX:
            raise ConfigError(
                f"{len(chosen)} configurations are too many for one figure (at most {SERIES_MAX}); "
                "choose some with only=[...] from results.configurations"
            )
        return chosen

    def _cells(self, only: Sequence[Configuration] | None) -> list[Cell]:
        chosen = self._chosen(only)
        return [cell for cell in self._results.cells if cell.configuration in chosen]

    def _panels(self, by: str, only: Sequence[Configuration] | None) -> dict[str, list[Cell]]:
        _one_of("by", by, ("region", *self._results.swept))
        from bench.trials.results import shown

        found: dict[str, list[Cell]] = {}
        for cell in self._cells(only):
            settings = cell.configuration.settings
            title = cell.title if by == "region" else shown(by, settings[by])
            found.setdefault(title, []).append(cell)
        return found

    def _series(self, cells: Sequence[Cell], by: str) -> list[tuple[str, Look, list[Cell]]]:
        """Label, look and cells of each configuration; regions are drawn together unless they are
        the panels. One colour per protocol and leader, one line per whatever else differs."""
        groups: dict[str, list[Cell]] = {}
        for cell in cells:
            groups.setdefault(self._results.label(cell.configuration, by), []).append(cell)
        seen: dict[str, int] = {}
        found = []
        for name, group in groups.items():
            protocol = group[0].configuration.label
            number = seen.setdefault(protocol, 0)
            seen[protocol] += 1
            look = self._looks[protocol]
            if number:
                look = look.but(
                    line=_LINES[number % len(_LINES)], hatch=_HATCHES[number % len(_HATCHES)]
                )
            found.append((name, look, group))
        return found

    def _tail(self, axes: Axes, values: Sequence[Any], look: Look, name: str) -> None:
        together = np.sort(np.concatenate(values)) if values else np.array([])
        count = len(together)
        if not count:
            return
        beyond = 1 - np.arange(count) / count
        axes.step(together, beyond, where="pre", label=name, color=look.colour, linestyle=look.line)
        mark_tail(axes, together, look)

    def _bars(self, axes: Axes, cells: Sequence[Cell], value: str, by: str) -> None:
        regions = list(dict.fromkeys(cell.title for cell in cells))
        series = self._series(cells, by)
        width = _GROUP / len(series)
        for number, (name, look, group) in enumerate(series):
            for at, cell in enumerate(group):
                record = cell.record(self._results.seed)
                if value not in record:
                    numbers = [key for key, each in record.items() if isinstance(each, float)]
                    raise ConfigError(f"value = {value!r} is unknown; one of {', '.join(numbers)}")
                height = record[value]
                if height is None:
                    continue
                x = regions.index(cell.title) - _GROUP / 2 + width * (number + 0.5)
                axes.bar(x, height, width, label=name if at == 0 else None, **look.filled)
                low, high = (record.get(value.replace("_ms", f"_{e}_ms")) for e in ("low", "high"))
                if low is not None and high is not None:
                    axes.plot((x, x), (low, high), color=INK, linewidth=0.8)
                optimum = record["optimum_ms"]
                if optimum is not None and value in ("answer_p50_ms", "commit_p50_ms"):
                    half = width * 0.5
                    axes.plot((x - half, x + half), (optimum, optimum), color=INK, linewidth=1.2)
        axes.set_xticks(range(len(regions)), regions)
        axes.tick_params(axis="x", length=0)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(_words(value))

    def _timeline(
        self, axes: Any, configuration: Configuration, latency: str, bin_s: float | None
    ) -> None:
        length_s = float(configuration.settings["duration_s"])
        step_s = bin_s or max(_BIN_MIN_S, length_s / _BINS)
        edges = np.arange(0, length_s + step_s / 2, step_s)
        repeats = configuration.repeats
        for each in repeats[0].stored.outcome.events:
            end = each.until_s
            if end is None:
                end = each.at_s if each.kind == "leader" else length_s
            for place in axes:
                place.axvspan(each.at_s, end, color=FAULT, linewidth=1, zorder=0)
        looks = islice(cycle(zip(REGIONS, REGION_MARKERS)), len(repeats[0].stored.outcome.regions))
        for cell, (colour, marker) in zip(configuration.cells(), looks):
            starts, values = [], []
            for repeat in repeats:
                mine = repeat.columns["region"] == cell.index
                starts.append(repeat.columns["start_us"][mine] / 1e6)
                values.append(repeat.columns[f"{latency}_us"][mine] / 1000)
            start, value = np.concatenate(starts), np.concatenate(values)
            medians = median_per_step(start, value, edges)
            rates = np.histogram(start, edges)[0] / step_s / len(repeats)
            middle = edges[:-1] + step_s / 2
            look = {"color": colour, "marker": marker, "markersize": 2.5, "linewidth": 1}
            axes[0].plot(middle, gaps(medians), label=cell.title, **look)
            axes[1].plot(middle, rates, **look)

    def _finish(self, figure: Figure, axes: Sequence[Axes]) -> None:
        """One legend over all panels."""
        handles: dict[str, Any] = {}
        for place in axes:
            for handle, label in zip(*place.get_legend_handles_labels()):
                handles.setdefault(label, handle)
        if handles:
            widest = max(map(len, handles)) + 8  # the line beside it
            room = int(figure.get_figwidth() * _CHARACTERS_PER_IN)
            columns = max(1, min(len(handles), room // widest))
            figure.legend(
                handles.values(), handles.keys(), loc="outside upper center", ncols=columns
            )


def _grid(
    count: int, columns: int = _COLUMNS, width_in: float = _PANEL_IN[0]
) -> tuple[Figure, list[Axes]]:
    """So many panels."""
    across = min(count, columns)
    down = ceil(count / across)
    width = 7.0 if columns == 1 else width_in * across
    figure = make(width, _PANEL_IN[1] * down + 0.5)
    found = figure.subplots(down, across, squeeze=False).flatten().tolist()
    for empty in found[count:]:
        empty.set_visible(False)
    return figure, found[:count]


def _tail_axes(axes: Axes) -> None:
    """0, 90, 99, 99.9 % at equal distances."""
    axes.set_yscale("log")
    axes.set_ylim(1, 1e-3)
    axes.set_yticks([1, 0.1, 0.01, 0.001], ["0 %", "90 %", "99 %", "99.9 %"])
    axes.set_yticks([0.5], ["50 %"], minor=True)
    axes.tick_params(axis="y", which="minor", length=2)
    axes.set_xlim(left=0)


def _words(value: str) -> str:
    """The name of a figure in a record, as a person reads it."""
    text = value.removesuffix("_ms").replace("_", " ")
    return f"{text}, ms" if value.endswith("_ms") else text


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name} = {value!r} is unknown; one of {', '.join(known)}")
