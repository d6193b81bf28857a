"""The world as SVG: land without network, regions as dots, ways along great circles.

Equirectangular; land from Natural Earth 1:110m (topology/data). Rings and ways that jump over the
date line are cut there.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from math import acos, cos, degrees, radians, sin

from markupsafe import Markup

from bench.reports.svg import element, picture

WIDTH, HEIGHT = 960.0, 420.0
_NORTH, _SOUTH = 75.0, -56.0
_STEPS = 32

Point = tuple[float, float]
"""Longitude and latitude in degrees, or x and y."""


def world(places: Sequence[Point], layers: Iterable[Markup]) -> Markup:
    """A map of what is around some places (longitude, latitude), with layers over the land."""
    heights = [project(*place)[1] for place in places]
    top = max(0.0, min(heights) - 90)
    bottom = min(HEIGHT, max(max(heights) + 70, top + 220))
    land = element("path", class_="land", d=land_path())
    return picture(WIDTH, bottom - top, "World map of the regions", land, *layers, top=top)


def project(lon: float, lat: float) -> Point:
    """Where a place is on the map, in SVG units."""
    return (lon + 180) / 360 * WIDTH, (_NORTH - lat) / (_NORTH - _SOUTH) * HEIGHT


@cache
def land_path() -> str:
    """All land as one SVG path."""
    text = files("topology").joinpath("data", "land-110m.topojson.json").read_text("utf-8")
    document = json.loads(text)
    arcs = _arcs(document)
    parts = []
    for polygon in _polygons(document["objects"]["land"]):
        for ring in polygon:
            points: list[Point] = []
            for number in ring:
                arc = arcs[number] if number >= 0 else arcs[~number][::-1]
                points += arc[1:] if points else arc
            parts += [_path(piece) + "Z" for piece in _cut(points) if len(piece) > 2]
    return "".join(parts)


def way_path(a: Point, b: Point) -> str:
    """The great circle between two places (longitude, latitude) as an SVG path."""
    return "".join(_path(piece) for piece in _cut(_great_circle(a, b)) if len(piece) > 1)


def _arcs(document: dict) -> list[list[Point]]:  # type: ignore[type-arg] # a JSON document
    (sx, sy), (tx, ty) = document["transform"]["scale"], document["transform"]["translate"]
    found = []
    for arc in document["arcs"]:
        x = y = 0
        points = []
        for dx, dy in arc:
            x, y = x + dx, y + dy
            points.append((x * sx + tx, y * sy + ty))
        found.append(points)
    return found


def _polygons(shape: dict) -> list[list[list[int]]]:  # type: ignore[type-arg] # a JSON document
    if shape["type"] == "GeometryCollection":
        return [polygon for each in shape["geometries"] for polygon in _polygons(each)]
    if shape["type"] == "MultiPolygon":
        return list(shape["arcs"])
    return [shape["arcs"]]


def _cut(points: list[Point]) -> list[list[Point]]:
    pieces: list[list[Point]] = [[]]
    for point in points:
        if pieces[-1] and abs(point[0] - pieces[-1][-1][0]) > 180:
            pieces.append([])
        pieces[-1].append(point)
    return pieces


def _path(points: list[Point]) -> str:
    shown = (project(*point) for point in points)
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in shown)


def _great_circle(a: Point, b: Point) -> list[Point]:
    ends = [_vector(a), _vector(b)]
    angle = acos(max(-1.0, min(1.0, sum(p * q for p, q in zip(*ends)))))
    if angle < 1e-6:
        return [a, b]
    found = []
    for step in range(_STEPS + 1):
        share = step / _STEPS
        first, second = sin((1 - share) * angle) / sin(angle), sin(share * angle) / sin(angle)
        x, y, z = (first * p + second * q for p, q in zip(*ends))
        lat = degrees(acos(max(-1.0, min(1.0, (x * x + y * y) ** 0.5)))) * (1 if z >= 0 else -1)
        lon = degrees(acos(max(-1.0, min(1.0, x / max((x * x + y * y) ** 0.5, 1e-12)))))
        found.append((lon if y >= 0 else -lon, lat))
    return found


def _vector(place: Point) -> tuple[float, float, float]:
    lon, lat = radians(place[0]), radians(place[1])
    return cos(lat) * cos(lon), cos(lat) * sin(lon), sin(lat)
