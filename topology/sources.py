"""Named topologies: measured matrices, subsets of clouds, and made-up shapes.

`find` reads what a person types:

    aws-5-2020                        five EC2 regions, June 2020 (the default)
    sosp13-figure4                    the round trips printed in the EPaxos paper
    sosp13-figure4-medians            those that the medians of its five-site graph imply
    epaxos-revisited, gryff-nsdi20, aws-tempo5-2021-02
    aws:us-east-1,eu-west-1,...       any regions of aws, aws-2020-06, gcp, azure, ibm
    lan[:n]                           one room, 0.2 ms
    equidistant:n,rtt_ms              everybody as far from everybody
    one-far:n,near_ms,far_ms          the last one is far from all others
    ./my.toml                         your own (topology/custom.py)
    ./my.csv, ./latency.conf, ./dats  matrices of others (topology/imported.py)
    my-offices                        an installed distribution's (topology/registered.py)
"""

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from topology.custom import read_toml
from topology.delay import NO_JITTER, Jitter, default_jitter, measured_jitter
from topology.imported import read_matrix
from topology.placement import Home, nearest_home
from topology.regions import (
    IN_REGION_MS,
    Region,
    Topology,
    TopologyError,
    square,
    suggestion,
)
from topology.registered import registered, registered_names

DEFAULT = "aws-5-2020"
"""What is used when nothing is said."""

_NAMED = (
    "aws-5-2020",
    "sosp13-figure4",
    "sosp13-figure4-medians",
    "epaxos-revisited",
    "gryff-nsdi20",
    "aws-tempo5-2021-02",
)
_CLOUDS = ("aws", "aws-2020-06", "gcp", "azure", "ibm")
_SHAPES = {
    "lan": "lan[:N]",
    "equidistant": "equidistant:N,RTT_MS",
    "one-far": "one-far:N,NEAR_MS,FAR_MS",
}
_TITLES = {
    "australiacentral2": "Canberra 2",
    "CA": "California",
    "VA": "Virginia",
    "OR": "Oregon",
    "EU": "Ireland",
    "JP": "Tokyo",
    "us-east-1": "Virginia",
    "us-west-1": "California",
    "us-west-2": "Oregon",
    "eu-west-1": "Ireland",
    "ap-northeast-1": "Tokyo",
}
_ORDER = ("VA", "CA", "OR", "EU", "JP")
"""Replicas A to E of the papers' five sites; replicas=3 keeps the source's own three."""


def names() -> list[str]:
    """What `find` knows, for people: named ones, clouds, shapes, and what is installed."""
    clouds = (f"{cloud}:REGION,..." for cloud in _CLOUDS)
    return [*_NAMED, *clouds, *_SHAPES.values(), *registered_names()]


def clouds() -> list[str]:
    """The matrices whose regions a person picks, like `aws:us-east-1,eu-west-1`."""
    return list(_CLOUDS)


def cloud_regions(name: str) -> tuple[Region, ...]:
    """Every region of a cloud. Raises TopologyError that lists the clouds."""
    if name not in _CLOUDS:
        raise TopologyError(
            f"there is no cloud {name!r}{suggestion(name, _CLOUDS)}; choose one of "
            f"{', '.join(_CLOUDS)}"
        )
    return tuple(_region(place) for place in _load(name)["regions"])


def find(spec: str = DEFAULT, replicas: int | None = None) -> Topology:
    """The topology a person asked for. `replicas` cuts it down to so many regions.

    Raises TopologyError that says what would be understood."""
    kind, _, rest = spec.partition(":")
    if spec.endswith(".toml"):
        found = read_toml(Path(spec))
    elif kind in _SHAPES:
        found = _shape(kind, rest, replicas)
    elif kind in _CLOUDS:
        found = _cloud(kind, rest)
    elif spec in _NAMED:
        found = _papers_sites(spec, replicas)
    elif (matrix := read_matrix(spec)) is not None:
        found = matrix
    elif (theirs := registered(spec)) is not None:
        found = theirs
    else:
        brought = registered_names()
        known = [*_NAMED, *_CLOUDS, *_SHAPES, *brought]
        raise TopologyError(
            f"there is no topology {spec!r}{suggestion(spec, known)}; choose one of "
            f"{', '.join((*_NAMED, *brought))}, a subset like aws:us-east-1,eu-west-1, "
            "lan:3, equidistant:5,100, one-far:5,20,200, or a file that ends in .toml, .csv or "
            ".conf, or a folder of .dat files"
        )
    if replicas is not None and found.n != replicas:
        if replicas > found.n or replicas < 1:
            raise TopologyError(
                f"topology {spec} has {found.n} regions, not {replicas}; name one with more, like "
                f"equidistant:{max(replicas, 1)},100, or regions of a cloud, like "
                "aws:us-east-1,eu-west-1,..."
            )
        found = found.subset([region.name for region in found.regions[:replicas]])
    return found


def find_homes(spec: str, found: Topology, names: Sequence[str]) -> tuple[Home, ...]:
    """Where clients in these regions send their commands: to the nearest replica, one being in
    each region of `found`. The regions are any of the source that `spec` was found in.

    Raises TopologyError that says which regions there are."""
    known = _source_regions(spec)
    chosen = [_named(spec, known, name).name for name in names]
    for name in chosen:
        if chosen.count(name) > 1:
            raise TopologyError(f"topology {spec}: clients in {name} are named twice")
    mine = [region.name for region in found.regions]
    homes = []
    for name in chosen:
        sites = found if name in mine else _among(spec, [*mine, name])
        homes.append(nearest_home(sites, sites.index(name), range(found.n)))
    return tuple(homes)


def _source_regions(spec: str) -> tuple[Region, ...]:
    kind = spec.partition(":")[0]
    return cloud_regions(kind) if kind in _CLOUDS else find(spec).regions


def _named(spec: str, known: tuple[Region, ...], name: str) -> Region:
    """A region by name or title."""
    wanted = name.strip().casefold()
    for region in known:
        if region.name.casefold() == wanted:
            return region
    for region in known:
        if region.title.casefold() == wanted:
            return region
    words = [word for region in known for word in (region.name, region.title)]
    raise TopologyError(
        f"the source of topology {spec} has no region {name!r}{suggestion(name, words)}; it has "
        f"{', '.join(region.name for region in known)}"
    )


def _among(spec: str, chosen: list[str]) -> Topology:
    """Some regions of the source behind a topology, in the order given."""
    kind = spec.partition(":")[0]
    if kind in _CLOUDS:
        return _cloud(kind, ",".join(chosen))
    return find(spec).subset(chosen)


@cache
def _load(name: str) -> dict[str, Any]:
    text = files("topology").joinpath("data", f"{name}.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def _papers_sites(name: str, replicas: int | None) -> Topology:
    document = _load(name)
    all_names = [region["name"] for region in document["regions"]]
    chosen = sorted(all_names, key=lambda each: _ORDER.index(each) if each in _ORDER else 99)
    if replicas == 3 and "three_site_subset" in document:
        chosen = list(document["three_site_subset"])
    return _measured(name, document, chosen)


def _cloud(name: str, rest: str) -> Topology:
    document = _load(name)
    known = [region["name"] for region in document["regions"]]
    chosen = [each.strip() for each in rest.split(",") if each.strip()]
    if not chosen:
        raise TopologyError(
            f"name the regions, like {name}:{','.join(known[:3])}; {name} has {', '.join(known)}"
        )
    for each in chosen:
        if each not in known:
            raise TopologyError(
                f"{name} has no region {each!r}{suggestion(each, known)}; it has {', '.join(known)}"
            )
    if len(set(chosen)) != len(chosen):
        raise TopologyError(f"{name}: a region is named twice")
    return _measured(f"{name}:{','.join(chosen)}", document, chosen)


def _measured(name: str, document: dict[str, Any], chosen: list[str]) -> Topology:
    places = {region["name"]: region for region in document["regions"]}
    rtt = [[_rtt(name, document, i, j) for j in chosen] for i in chosen]
    notes = [
        f"{pair} is {word}, not measured"
        for word in ("inferred", "guessed")
        for pair in document.get(word, ())
        if all(end in chosen for end in pair.split("-"))
    ]
    return Topology(
        name=name,
        title=document["title"],
        source=document["source"],
        date=str(document["date"]),
        regions=tuple(_region(places[each]) for each in chosen),
        rtt=tuple(map(tuple, rtt)),
        jitters=tuple(
            tuple(_jitter(document, i, j, rtt[a][b]) for b, j in enumerate(chosen))
            for a, i in enumerate(chosen)
        ),
        asymmetry=square(len(chosen), 0.0),
        losses=square(len(chosen), 0.0),
        notes=tuple(notes),
    )


def _rtt(name: str, document: dict[str, Any], i: str, j: str) -> float:
    """Mean of both directions: a ping measures the same round trip from either end."""
    if i == j:
        return IN_REGION_MS
    found = [
        float(document["rtt"][a][b])
        for a, b in ((i, j), (j, i))
        if document["rtt"].get(a, {}).get(b) is not None
    ]
    if not found:
        raise TopologyError(f"topology {name}: nobody measured {i} to {j}; leave one of them out")
    return sum(found) / len(found)


def _jitter(document: dict[str, Any], i: str, j: str, mean_ms: float) -> Jitter:
    if i == j:
        return NO_JITTER
    least = document.get("rtt_min", {}).get(i, {}).get(j)
    deviation = document.get("jitter_mdev", {}).get(i, {}).get(j)
    if least is None or deviation is None:
        return default_jitter(mean_ms)
    most = document.get("rtt_max", {}).get(i, {}).get(j)
    return measured_jitter(
        mean_ms, float(least), float(deviation), None if most is None else float(most)
    )


def _region(place: dict[str, Any]) -> Region:
    name = place["name"]
    city = place.get("city", "")
    return Region(
        name,
        _TITLES.get(name, city.split(",")[0] or name),
        city,
        place.get("lat"),
        place.get("lon"),
    )


def _shape(kind: str, rest: str, replicas: int | None) -> Topology:
    form = {
        "lan": "lan or lan:5",
        "equidistant": "equidistant:5,100",
        "one-far": "one-far:5,20,200",
    }[kind]
    try:
        numbers = [_plain(each.strip()) for each in rest.split(",") if each.strip()]
        size = numbers.pop(0) if numbers else (replicas or 5)
        wanted = {"lan": 0, "equidistant": 1, "one-far": 2}[kind]
        if (
            len(numbers) != wanted
            or not 1 <= size <= 16
            or size != int(size)
            or not all(0 <= each <= 60_000 for each in numbers)
        ):
            raise ValueError
    except (ValueError, OverflowError):
        raise TopologyError(f"write {kind} like {form}, not {kind}:{rest}") from None
    size = int(size)
    if kind == "lan":
        return _made_up(f"lan:{size}", size, 0.2, 0.2, "one room, 0.2 ms")
    if kind == "equidistant":
        return _made_up(
            f"{kind}:{rest}",
            size,
            numbers[0],
            numbers[0],
            f"everybody {numbers[0]:g} ms from everybody",
        )
    return _made_up(
        f"{kind}:{rest}",
        size,
        numbers[0],
        numbers[1],
        f"{size - 1} regions {numbers[0]:g} ms apart, the last {numbers[1]:g} ms away",
    )


def _plain(text: str) -> float:
    """A number in ASCII digits. Raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise ValueError
    return float(text)


def _made_up(name: str, size: int, near: float, far: float, title: str) -> Topology:
    last = size - 1
    rtt = tuple(
        tuple(
            min(near, IN_REGION_MS) if i == j else far if last in (i, j) else near
            for j in range(size)
        )
        for i in range(size)
    )
    return Topology(
        name=name,
        title=title,
        source="made up",
        date="",
        regions=tuple(Region(f"R{i + 1}", f"Region {i + 1}") for i in range(size)),
        rtt=rtt,
        jitters=square(size, NO_JITTER),
        asymmetry=square(size, 0.0),
        losses=square(size, 0.0),
    )
