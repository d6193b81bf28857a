"""Your own topology, from a TOML file.

    title = "Three offices"

    [regions.berlin]
    title = "Berlin"
    lat = 52.52
    lon = 13.40

    [regions.tokyo]

    [links.berlin-tokyo]
    rtt_ms = 220            # mean round trip
    jitter_ms = 0.4         # mean of what is added one way (default 0.2 % of the way)
    loss = 0.0              # probability per message
    asymmetry_ms = 5        # berlin -> tokyo is longer than half the round trip by this

Every pair needs a link. Rules of this file: an error names file, table and key, and what to write.
"""

import tomllib
from pathlib import Path
from typing import Any

from topology.delay import NO_JITTER, default_jitter, mild_jitter
from topology.regions import (
    IN_REGION_MS,
    REGIONS_MAX,
    Region,
    Topology,
    TopologyError,
    suggestion,
)

_TOP_KEYS = ("title", "source", "date", "regions", "links")
_REGION_KEYS = ("title", "city", "lat", "lon")
_LINK_KEYS = ("rtt_ms", "jitter_ms", "loss", "asymmetry_ms")
_RANGES = {
    "rtt_ms": (0.0, 60_000.0, "220"),
    "jitter_ms": (0.0, 60_000.0, "0.4"),
    "loss": (0.0, 1.0, "0.01"),
    "asymmetry_ms": (-60_000.0, 60_000.0, "5"),
    "lat": (-90.0, 90.0, "52.5"),
    "lon": (-180.0, 180.0, "13.4"),
}


def read_toml(path: Path) -> Topology:
    """The topology in a file. Raises TopologyError."""
    where = f"topology {path}"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise TopologyError(f"{where}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # also numbers and depths that Python refuses
        raise TopologyError(f"{where}: not TOML: {error}") from None
    _check_keys(where, document, _TOP_KEYS)
    regions = _table(where, document, "regions")
    links = _table(where, document, "links")
    if not 1 <= len(regions) <= REGIONS_MAX:
        raise TopologyError(
            f"{where}: [regions] needs 1 to {REGIONS_MAX} regions, not {len(regions)}"
        )
    names = list(regions)
    found = _by_ends(where, links, names)
    size = len(names)
    rtt = [[IN_REGION_MS] * size for _ in names]
    jitters = [[NO_JITTER] * size for _ in names]
    asymmetry = [[0.0] * size for _ in names]
    losses = [[0.0] * size for _ in names]
    for i, a in enumerate(names):
        for j, b in enumerate(names[i + 1 :], i + 1):
            link = found.get((a, b)) or found.get((b, a))
            if link is None:
                raise TopologyError(
                    f"{where}: there is no [links.{a}-{b}]; write one, for example with "
                    "rtt_ms = 100"
                )
            at = f"{where}: [links.{link[0]}]"
            _check_keys(at, link[1], _LINK_KEYS)
            rtt[i][j] = rtt[j][i] = _number(at, link[1], "rtt_ms", None)
            mean_us = 1000 * _number(at, link[1], "jitter_ms", -1.0)
            jitter = mild_jitter(mean_us) if mean_us >= 0 else default_jitter(rtt[i][j])
            jitters[i][j] = jitters[j][i] = jitter
            losses[i][j] = losses[j][i] = _number(at, link[1], "loss", 0.0)
            longer = _number(at, link[1], "asymmetry_ms", 0.0)
            if abs(longer) > rtt[i][j] / 2:
                raise TopologyError(f"{at} asymmetry_ms = {longer:g} is over half of rtt_ms")
            forth = longer if (a, b) in found else -longer
            asymmetry[i][j], asymmetry[j][i] = forth, -forth
    return Topology(
        name=str(path),
        title=_text(where, document, "title", path.stem),
        source=_text(where, document, "source", str(path)),
        date=_text(where, document, "date", ""),
        regions=tuple(_region(where, name, regions[name]) for name in names),
        rtt=tuple(map(tuple, rtt)),
        jitters=tuple(map(tuple, jitters)),
        asymmetry=tuple(map(tuple, asymmetry)),
        losses=tuple(map(tuple, losses)),
    )


def _region(where: str, name: str, values: dict[str, Any]) -> Region:
    at = f"{where}: [regions.{name}]"
    _check_keys(at, values, _REGION_KEYS)
    placed = "lat" in values or "lon" in values
    return Region(
        name,
        _text(at, values, "title", name),
        _text(at, values, "city", ""),
        _number(at, values, "lat", None) if placed else None,
        _number(at, values, "lon", None) if placed else None,
    )


def _by_ends(
    where: str, links: dict[str, dict[str, Any]], names: list[str]
) -> dict[tuple[str, str], tuple[str, dict[str, Any]]]:
    found: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    for link, values in links.items():
        a, b = _ends(where, link, names)
        twin = found.get((a, b)) or found.get((b, a))
        if twin is not None:
            raise TopologyError(
                f"{where}: [links.{link}] and [links.{twin[0]}] join the same two regions; "
                "keep one (asymmetry_ms says which way is longer)"
            )
        found[a, b] = (link, values)
    return found


def _ends(where: str, link: str, names: list[str]) -> tuple[str, str]:
    """The two regions that a link's name joins; region names may contain hyphens themselves."""
    for a in names:
        for b in names:
            if a != b and link == f"{a}-{b}":
                return a, b
    raise TopologyError(
        f"{where}: [links.{link}] does not join two of the regions {', '.join(names)}; "
        f"write for example [links.{names[0]}-{names[-1]}]"
    )


def _check_keys(where: str, values: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in values:
        if key not in known:
            raise TopologyError(
                f"{where}: unknown key {key!r}{suggestion(key, known)}; "
                f"known are {', '.join(known)}"
            )


def _table(where: str, document: dict[str, Any], key: str) -> dict[str, dict[str, Any]]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise TopologyError(f"{where}: {key} must be tables, like [{key}.name]")
    for name, value in table.items():
        if not isinstance(value, dict):
            raise TopologyError(f"{where}: [{key}] {name} must be a table, like [{key}.{name}]")
    return table


def _number(where: str, values: dict[str, Any], key: str, default: float | None) -> float:
    low, high, example = _RANGES[key]
    value = values.get(key, default)
    if value is None:
        raise TopologyError(f"{where} lacks {key}; write for example {key} = {example}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TopologyError(
            f'{where} {key} = "{value}" is not a number; write for example {key} = {example}'
        )
    if value is not default and not low <= value <= high:
        raise TopologyError(
            f"{where} {key} = {str(value)[:40]} is not between {low:g} and {high:g}; "
            f"write for example {key} = {example}"
        )
    return float(value)


def _text(where: str, values: dict[str, Any], key: str, default: str) -> str:
    value = values.get(key, default)
    if not isinstance(value, str):
        raise TopologyError(f'{where} {key} = {value} is not a text; write for example "{default}"')
    if key in values and not value.isprintable():
        raise TopologyError(f"{where} {key} has signs that do not print; write one line of text")
    return value
