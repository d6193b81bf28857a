"""Matrices that people have, read by their ending, into a topology of round trips.

    mine.csv          `epaxos topology show --format csv`: a row per ordered pair
    latency_aws/      fantoch's folder: REGION.dat with lines MIN/AVG/MAX/MDEV:REGION of a ping
    latency.conf      swiftpaxos': lines FROM TO 128ms
    FILE:REGION,...   some of its regions, in this order

All three hold round trips: `rtt_ms`; ping's mean, of which fantoch takes a half each way; and
swiftpaxos waits for a half before it sends. Rules of this file: an error names file and line, and
what to write.
"""

import csv
import re
from collections.abc import Iterator
from math import exp
from pathlib import Path
from typing import Final, NamedTuple

from topology.delay import NO_JITTER, Jitter, default_jitter, measured_jitter, mild_jitter
from topology.regions import (
    IN_REGION_MS,
    REGIONS_MAX,
    Region,
    Topology,
    TopologyError,
    suggestion,
)

_LONGEST_MS: Final = 60_000.0
_ROUNDED_MS: Final = 0.002
"""Tables keep three digits behind the point: less than this is no asymmetry."""
_NUMBER: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?(e-?[0-9]{1,2})?")
_DURATION: Final = re.compile(r"([0-9.]+)(us|µs|ms|s)")
_MS_PER: Final = {"us": 0.001, "µs": 0.001, "ms": 1.0, "s": 1000.0}
_COLUMNS: Final = ("from", "to", "rtt_ms")
_OPTIONAL: Final = ("one_way_ms", "one_way_floor_ms", "loss")


class _Link(NamedTuple):
    """What a file says of one ordered pair."""

    rtt_ms: float
    where: str
    """File and line."""
    one_way_ms: float | None = None
    floor_ms: float | None = None
    loss: float = 0.0
    jitter: Jitter | None = None


_Links = dict[tuple[str, str], _Link]


def read_matrix(spec: str) -> Topology | None:
    """The topology in a `.csv`, a `.conf` or a folder of `.dat` files, or some of its regions;
    None: `spec` names none of these. Raises TopologyError."""
    text, _, picked = spec.partition(":")
    path = Path(text)
    if path.suffix == ".csv":
        links, what = _read_csv(path), "a table of round trips"
    elif path.suffix == ".conf":
        links, what = _read_conf(path), "a latency.conf of swiftpaxos"
    elif path.is_dir():
        links, what = _read_dats(path), "mean round trips of ping, a folder of fantoch"
    else:
        return None
    return _topology(
        spec, path, links, what, [each.strip() for each in picked.split(",") if each.strip()]
    )


def source_files(spec: str) -> list[Path]:
    """The files that a topology is read from, of any kind; none where it has a name."""
    path = Path(spec.partition(":")[0])
    if spec.endswith(".toml"):
        return [Path(spec)]
    if path.suffix in (".csv", ".conf"):
        return [path]
    return sorted(path.glob("*.dat"))


def _topology(spec: str, path: Path, links: _Links, what: str, chosen: list[str]) -> Topology:
    known = list(dict.fromkeys(name for pair in links for name in pair))
    for name in chosen:
        if name not in known:
            raise TopologyError(
                f"topology {path}: there is no region {name!r}{suggestion(name, known)}; it has "
                f"{', '.join(known)}"
            )
    names = chosen or known
    if not names:
        raise TopologyError(f"topology {path}: no line joins two regions; add one")
    if not 1 <= len(names) <= REGIONS_MAX:
        raise TopologyError(
            f"topology {path} has {len(names)} regions, a topology 1 to {REGIONS_MAX}; name some, "
            f"like {path}:{','.join(names[:3])}"
        )
    if len(set(names)) != len(names):
        raise TopologyError(f"topology {spec}: a region is named twice")
    size = len(names)
    rtt = [[IN_REGION_MS] * size for _ in names]
    jitters = [[NO_JITTER] * size for _ in names]
    asymmetry = [[0.0] * size for _ in names]
    losses = [[0.0] * size for _ in names]
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            if i == j:
                continue
            link, back = links.get((a, b)), links.get((b, a))
            one = link or back
            if one is None:
                raise TopologyError(
                    f"topology {path}: nothing says how far {a} is from {b}; "
                    "add a line, or name other regions"
                )
            other = back or link or one
            rtt[i][j] = (one.rtt_ms + other.rtt_ms) / 2
            losses[i][j] = one.loss
            if one.one_way_ms is not None:
                longer = one.one_way_ms - rtt[i][j] / 2
                asymmetry[i][j] = longer if abs(longer) > _ROUNDED_MS else 0.0
            jitters[i][j] = _jitter(one, rtt[i][j])
            if abs(asymmetry[i][j]) > rtt[i][j] / 2:
                raise TopologyError(f"{one.where}: one_way_ms is longer than the round trip")
            if j < i and abs(asymmetry[i][j] + asymmetry[j][i]) > 2 * _ROUNDED_MS:
                raise TopologyError(
                    f"{one.where}: one_way_ms there and back are not the round trip together"
                )
    return Topology(
        name=spec,
        title=f"{path.stem}: {what}",
        source=str(path),
        date="",
        regions=tuple(Region(name, name) for name in names),
        rtt=tuple(map(tuple, rtt)),
        jitters=tuple(map(tuple, jitters)),
        asymmetry=tuple(map(tuple, asymmetry)),
        losses=tuple(map(tuple, losses)),
        notes=_notes({pair: link for pair, link in links.items() if {*pair} <= {*names}}),
    )


def _notes(links: _Links) -> tuple[str, ...]:
    """What must be said: figures are round trips, and where the two directions differ."""
    notes = ["the file's figures are taken as round trips; half of one is the way of a message"]
    for (a, b), link in links.items():
        back = links.get((b, a))
        if a < b and back is not None and abs(link.rtt_ms - back.rtt_ms) > link.rtt_ms / 100:
            notes.append(
                f"{a} to {b}: {link.rtt_ms:g} ms, and back {back.rtt_ms:g} ms; their mean is taken"
            )
    return tuple(notes)


def _jitter(link: _Link, rtt_ms: float) -> Jitter:
    if link.jitter is not None:
        return link.jitter
    if link.one_way_ms is not None and link.floor_ms is not None:
        rest_us = (link.one_way_ms - link.floor_ms) * 1000
        return mild_jitter(rest_us / (1 - exp(-5))) if rest_us > 0 else NO_JITTER  # it cuts at 5
    return default_jitter(rtt_ms)


def _read_csv(path: Path) -> _Links:
    found: _Links = {}
    rows = _rows(path)
    _, columns = next(rows, (1, []))
    for column in _COLUMNS:
        if column not in columns:
            raise TopologyError(
                f"topology {path}, line 1: there is no column {column!r}; write "
                f"{','.join((*_COLUMNS, *_OPTIONAL))}; the last three may be missing"
            )
    for column in columns:
        if column not in (*_COLUMNS, *_OPTIONAL) or columns.count(column) > 1:
            raise TopologyError(
                f"topology {path}, line 1: column {column[:40]!r} is unknown or twice there"
            )
    for number, row in rows:
        where = f"topology {path}, line {number}"
        if len(row) != len(columns):
            raise TopologyError(f"{where}: {len(row)} fields instead of {len(columns)}")
        values = {column: text.strip() for column, text in zip(columns, row)}
        numbers = {
            column: _number(where, f"{column} = ", values[column])
            for column in (*_COLUMNS[2:], *_OPTIONAL)
            if values.get(column)
        }
        if "rtt_ms" not in numbers:
            raise TopologyError(f"{where}: rtt_ms is missing")
        if numbers.get("loss", 0.0) > 1:
            raise TopologyError(f"{where}: loss = {numbers['loss']:g} is not from 0 to 1")
        link = _Link(
            numbers["rtt_ms"],
            where,
            numbers.get("one_way_ms"),
            numbers.get("one_way_floor_ms"),
            numbers.get("loss", 0.0),
        )
        _add(found, where, values["from"], values["to"], link)
    return found


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, with their lines. Raises TopologyError."""
    rows = csv.reader(text for _, text in _lines(path))
    try:
        for row in rows:
            if row:
                yield rows.line_num, row
    except csv.Error as error:
        raise TopologyError(f"topology {path}, line {rows.line_num}: {error}") from None


def _read_dats(folder: Path) -> _Links:
    files = sorted(folder.glob("*.dat"))
    if not files:
        raise TopologyError(
            f"topology {folder}: there is no file REGION.dat in it, with lines like "
            "10.457/10.549/12.038/0.117:us-east-2"
        )
    names = [file.stem for file in files]
    found: _Links = {}
    for file in files:
        for number, text in _lines(file):
            where = f"topology {file}, line {number}"
            figures, colon, name = text.strip().rpartition(":")
            parts = figures.split("/")
            if not colon or len(parts) != 4:
                raise TopologyError(
                    f"{where}: {text.strip()[:60]!r} is not ping's MIN/AVG/MAX/MDEV:REGION"
                )
            least, mean, most, spread = (_number(where, "", part) for part in parts)
            if not least <= mean <= most:
                raise TopologyError(
                    f"{where}: the mean {mean:g} is not between {least:g} and {most:g}"
                )
            if name in names:
                jitter = measured_jitter(mean, least, spread, most)
                _add(found, where, file.stem, name, _Link(mean, where, jitter=jitter))
    return found


def _read_conf(path: Path) -> _Links:
    found: _Links = {}
    for number, text in _lines(path):
        words = text.split()
        where = f"topology {path}, line {number}"
        if not words or words[0].startswith(("#", "//")):
            continue
        if words[0] == "uniform":
            raise TopologyError(
                f"{where}: `uniform` names no regions; write --topology equidistant:5,100 for five "
                "regions 100 ms apart"
            )
        if len(words) != 3:
            raise TopologyError(f"{where}: {text.strip()[:60]!r} is not FROM TO 128ms")
        shaped = _DURATION.fullmatch(words[2])
        if shaped is None:
            raise TopologyError(
                f"{where}: {words[2][:40]!r} is not a time; write for example 128ms"
            )
        rtt_ms = _number(where, "", shaped[1]) * _MS_PER[shaped[2]]
        if rtt_ms > _LONGEST_MS:
            raise TopologyError(f"{where}: {rtt_ms:g} ms is over {_LONGEST_MS:g} ms")
        if words[0] == words[1]:
            continue
        # A line holds both ways, and takes the place of an earlier one, as swiftpaxos reads it.
        found[words[0], words[1]] = found[words[1], words[0]] = _Link(rtt_ms, where)
    return found


def _add(found: _Links, where: str, a: str, b: str, link: _Link) -> None:
    for name in (a, b):
        if not name:
            raise TopologyError(f"{where}: the name of a region is missing")
    if a == b:
        return
    if (a, b) in found:
        raise TopologyError(f"{where}: {a} to {b} stands there before, in {found[a, b].where}")
    if link.rtt_ms > _LONGEST_MS:
        raise TopologyError(f"{where}: {link.rtt_ms:g} ms is over {_LONGEST_MS:g} ms")
    found[a, b] = link


def _number(where: str, what: str, text: str) -> float:
    text = text.strip()
    if not _NUMBER.fullmatch(text) or float(text) > _LONGEST_MS:
        raise TopologyError(
            f"{where}: {what}{text[:40]!r} is not a number of ms up to {_LONGEST_MS:g}, like 128.5"
        )
    return float(text)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers. Raises TopologyError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise TopologyError(f"topology {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise TopologyError(f"topology {path}: not UTF-8: {error.reason}") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() or path.suffix == ".csv":
            yield number, line
