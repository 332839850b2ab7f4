"""Farmland as polygons: blocks between roads, and fields split out of them.

A block is cut again and again across its longer side until its pieces have the size that was
drawn for them, as inheritance and land consolidation do. All pieces are convex; a gentle warp of
the whole plane then bends straight edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import shapely
from shapely.geometry import LineString, MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from cube.simulate.crops import CROPS, Crop
from cube.simulate.layout import Layout
from cube.simulate.rng import stream
from cube.simulate.settings import Settings

Kind = Literal["crop", "forest", "built", "water", "road", "scrub", "orchard"]

BLOCK_HECTARES = 26.0
#: Mean field size on open land, in hedged country and on vine slopes, relative to the mean.
LAND_SIZES = np.array([2.1, 0.85, 0.6])
#: How far beyond the region the land is laid out, so that its rim is like its middle (m).
MARGIN = 240.0


@dataclass
class Unit:
    """A piece of land with one cover; `crop` only where it is declared farmland.

    `axis` is the direction of its rows in radians, `hectares` its area.
    """

    polygon: Polygon
    kind: Kind
    crop: Crop | None = None
    axis: float = 0.0

    @property
    def hectares(self) -> float:
        """Area in hectares."""
        return float(self.polygon.area) / 1e4


def cut(ring: np.ndarray, point: np.ndarray, normal: np.ndarray) -> list[np.ndarray]:
    """Cut a convex polygon (vertices [n, 2]) by a line; return its one or two parts."""
    side = (ring - point) @ normal
    parts = []
    for sign in (1.0, -1.0):
        kept = []
        for i in range(len(ring)):
            a, b = sign * side[i - 1], sign * side[i]
            if a * b < 0:
                kept.append(ring[i - 1] + (ring[i] - ring[i - 1]) * (a / (a - b)))
            if b >= 0:
                kept.append(ring[i])
        if len(kept) >= 3:
            parts.append(np.array(kept))
    return parts


def area(ring: np.ndarray) -> float:
    """Return the area of a polygon given by its vertices [n, 2] (shoelace formula)."""
    x, y = ring[:, 0], ring[:, 1]
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def long_axis(ring: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the direction in which a polygon is longer, and its length-to-width ratio.

    Only the direction of the longest edge and its normal are considered: fields are cut square to
    their edges.
    """
    edges = np.roll(ring, -1, axis=0) - ring
    lengths = np.hypot(*edges.T)
    along = edges[lengths.argmax()] / lengths.max()
    across = np.array([-along[1], along[0]])
    length, width = (np.ptp(ring @ axis) for axis in (along, across))
    if width > length:
        along, length, width = across, width, length
    return along, float(length / max(width, 1e-9))


def split(
    ring: np.ndarray, mean_area: float, spread: float, jitter: float, rng: np.random.Generator
) -> list[np.ndarray]:
    """Cut a convex polygon into pieces of log-normal area (m²), across the longer side each time.

    `spread` is the standard deviation of log area, `jitter` that of the cut's direction (radians).
    """
    done, todo = [], [ring]
    while todo:
        piece = todo.pop()
        size = area(piece)
        target = mean_area * np.exp(rng.normal(-(spread**2) / 2, spread))
        axis, ratio = long_axis(piece)
        if size < 1.4 * target or size < 1200:
            done.append(piece)
            continue
        if ratio < 1.6 and rng.random() < 0.25:  # a strip cut keeps fields from being all square
            axis = np.array([-axis[1], axis[0]])
        turn = rng.normal(0, jitter)
        c, s = np.cos(turn), np.sin(turn)
        normal = np.array([c * axis[0] - s * axis[1], s * axis[0] + c * axis[1]])
        reach = (piece @ normal).max() - (piece @ normal).min()
        at = piece.mean(axis=0) + normal * reach * rng.uniform(-0.14, 0.14)
        todo.extend(cut(piece, at, normal))
    return done


class Warp:
    """A gentle, smooth displacement of the plane; the same for every geometry."""

    def __init__(self, rng: np.random.Generator, waves: int = 7) -> None:
        length = rng.uniform(350, 1800, waves)
        angle = rng.uniform(0, np.pi, waves)
        self.k = 2 * np.pi / length * np.stack([np.cos(angle), np.sin(angle)])
        self.phase = rng.uniform(0, 2 * np.pi, (2, waves))
        self.size = length / 1000 * rng.uniform(4, 11, (2, waves))

    def __call__(self, xy: np.ndarray) -> np.ndarray:
        """Return points [n, 2] moved by some tens of metres at most."""
        wave = xy @ self.k
        moved = [
            (np.sin(wave + p) * s).sum(axis=1) for p, s in zip(self.phase, self.size, strict=True)
        ]
        return xy + np.stack(moved, axis=1)

    def apply(self, geometry: BaseGeometry) -> BaseGeometry:
        """Return the geometry with its edges bent."""
        return shapely.transform(shapely.segmentize(geometry, 60.0), self)


def _inset(ring: np.ndarray, metres: float) -> Polygon | None:
    """Return the polygon shrunk by `metres`, or None when nothing worth farming is left."""
    inner = Polygon(ring).buffer(-metres, join_style="mitre")
    if not isinstance(inner, Polygon) or inner.is_empty or inner.area < 900:
        return None
    return inner


class Farmland:
    """Lays out one region: which block is forest, village or farmland, and what grows where."""

    def __init__(self, place: Layout, settings: Settings) -> None:
        self.settings = settings
        self.region = place.region
        self.rng = stream(settings.seed, place.region.name, "land")
        g = place.grid
        right, bottom = g.left + 10 * g.width, g.top - 10 * g.height
        self.bounds = (g.left - MARGIN, bottom - MARGIN, right + MARGIN, g.top + MARGIN)
        self.warp = Warp(self.rng)
        self.waves = [Warp(self.rng, 5) for _ in range(3)]
        per_square_km = 0.07
        area_km2 = (self.bounds[2] - self.bounds[0]) * (self.bounds[3] - self.bounds[1]) / 1e6
        n = max(1, int(self.rng.poisson(per_square_km * area_km2)))
        self.villages = self.rng.uniform(self.bounds[:2], self.bounds[2:], (n, 2))

    def units(self) -> list[Unit]:
        """Return every unit: roads and scrub first, then fields, forests, villages, the river."""
        left, bottom, right, top = self.bounds
        corners = np.array([(left, bottom), (right, bottom), (right, top), (left, top)])
        tilt = self.rng.uniform(0.1, 0.5)
        blocks = []
        for half in cut(corners, corners.mean(axis=0), np.array([np.cos(tilt), np.sin(tilt)])):
            blocks += split(half, BLOCK_HECTARES * 1e4, 0.55, 0.16, self.rng)
        units: list[Unit] = []
        for block in blocks:
            units += self._block(block)
        units = [
            Unit(polygon, u.kind, u.crop, u.axis)
            for u in units
            if isinstance(polygon := self.warp.apply(u.polygon), Polygon)
        ]
        return self._flood(units)

    def _block(self, ring: np.ndarray) -> list[Unit]:
        middle = ring.mean(axis=0)
        wood, hedges, vines = (self._wave(i, middle) for i in range(3))
        village = np.hypot(*(self.villages - middle).T).min()
        road = self.rng.uniform(2.5, 6.0)
        inner = _inset(ring, road)
        if inner is None:
            return []
        units = [Unit(Polygon(ring), "road")] if self.rng.random() < 0.55 else []
        if village < 330:
            return units + self._village(np.array(inner.exterior.coords)[:-1])
        if wood > 1.5:
            stands = split(np.array(inner.exterior.coords)[:-1], 4e4, 0.7, 0.3, self.rng)
            return units + [Unit(Polygon(stand), "forest") for stand in stands]
        return units + self._fields(np.array(inner.exterior.coords)[:-1], hedges, vines)

    def _wave(self, i: int, at: np.ndarray) -> float:
        """Return a smooth random number of about unit variance for a place."""
        moved = self.waves[i](at[None] * 0.7) - at[None] * 0.7
        return float(moved[0, 0] / np.sqrt((self.waves[i].size[0] ** 2).sum() / 2))

    def _village(self, ring: np.ndarray) -> list[Unit]:
        plots = split(ring, 1100.0, 0.5, 0.1, self.rng)
        return [
            Unit(plot, "built" if self.rng.random() < 0.55 else "scrub", axis=0.0)
            for piece in plots
            if (plot := _inset(piece, 1.0)) is not None
        ]

    def _fields(self, ring: np.ndarray, hedges: float, vines: float) -> list[Unit]:
        land = self._land(hedges, vines)
        size = self.settings.mean_parcel_ha * 1e4 * LAND_SIZES[land]
        axis, _ = long_axis(ring)
        units = []
        for piece in split(ring, size, 0.65, 0.07, self.rng):
            field = _inset(piece, self.rng.uniform(1.0, (1.8, 3.2, 2.0)[land]))
            if field is None:
                continue
            along, ratio = long_axis(piece)
            rows = along if ratio > 1.2 else axis
            unit = Unit(field, "crop", axis=float(np.arctan2(rows[1], rows[0])))
            if self.rng.random() < (0.03, 0.10, 0.05)[land]:
                unit.kind = "scrub" if self.rng.random() < 0.6 else "forest"
            else:
                unit.crop = self._crop(unit.hectares, land)
            units.append(unit)
        return units

    def _land(self, hedges: float, vines: float) -> int:
        """Return 0 for open fields, 1 for hedged country, 2 for vine slopes."""
        woody = self.region.tilt.get("VRC", 1.0) + 0.3 * self.region.tilt.get("VRG", 1.0)
        if woody > 0.4 and vines > 1.5 - 0.2 * woody:
            return 2
        return int(hedges > 0.65 - 0.5 * np.log(max(self.region.tilt.get("PPH", 1.0), 0.2)))

    def _crop(self, hectares: float, land: int) -> Crop:
        fits = np.array(
            [
                crop.share
                * self.region.tilt.get(crop.code, 1.0)
                * crop.land[land]
                * np.exp(-0.5 * (np.log(hectares / crop.hectares) / 1.1) ** 2)
                for crop in CROPS
            ]
        )
        return CROPS[int(self.rng.choice(len(CROPS), p=fits / fits.sum()))]

    def _flood(self, units: list[Unit]) -> list[Unit]:
        """Cut a river with wooded banks through the region, and put a pond or two."""
        left, bottom, right, top = self.bounds
        y = np.linspace(bottom, top, 90)
        x0 = left + (right - left) * self.rng.uniform(0.12, 0.88)
        bends = zip((900, 1700, 3100), (45, 90, 160), strict=True)
        x = x0 + sum(a * np.sin(2 * np.pi * y / w + self.rng.uniform(0, 6.3)) for w, a in bends)
        course = LineString(np.stack([x, y], axis=1))
        river, banks = (
            course.buffer(self.rng.uniform(7, 13)),
            course.buffer(self.rng.uniform(20, 34)),
        )
        kept = []
        for unit in units:
            dry = unit.polygon.difference(banks) if unit.polygon.intersects(banks) else unit.polygon
            dry = dry.buffer(0) if not dry.is_valid else dry
            pieces = dry.geoms if isinstance(dry, MultiPolygon) else [dry]
            kept += [
                Unit(p, unit.kind, unit.crop, unit.axis)
                for p in pieces
                if isinstance(p, Polygon) and p.area > 600
            ]
        return [*kept, Unit(banks, "forest"), Unit(river, "water")]
