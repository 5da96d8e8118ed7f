"""Totes in their surroundings, and the trays, tables and compartments of same-object."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from armbench_mmdet.minibench import paint
from armbench_mmdet.minibench.camera import Points, cos_sin, level_quad
from armbench_mmdet.minibench.paint import Canvas, Colour, Pixels

_CORNER_STEPS = 5
_ARCS = np.array([cos_sin(math.pi / 2 * (q + i / _CORNER_STEPS)) for q in range(4) for i in range(_CORNER_STEPS + 1)])
_CORNERS = np.repeat(np.array([(1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)]), _CORNER_STEPS + 1, axis=0)

# Least and range of a tote's measures.
_MEASURES = {'half_y': (0.31, 0.035), 'rim': (0.24, 0.09), 'lip': (0.026, 0.014), 'slope': (0.022, 0.03)}
_MEASURES |= {'notch': (0.012, 0.016), 'notch_half': (0.13, 0.05)}
# Of the walls from rim to floor: how far towards the floor's edge, the height as a share of the rim's, the brightness.
_LEVELS = [(0.0, 1.0, 0.95), (0.02, 0.97, 0.7), (0.22, 0.80, 0.92), (0.30, 0.78, 0.98)]
_LEVELS += [(0.48, 0.55, 0.86), (0.7, 0.3, 0.78), (0.88, 0.12, 0.70), (1.0, 0.0, 0.62)]
# Steel, dark steel, safety yellow, machine blue and green, in the hall's dim light.
_PAINTS: tuple[Colour, ...] = ((82, 84, 86), (60, 61, 62), (48, 48, 50), (30, 110, 130), (110, 72, 40), (62, 84, 52))


def rounded(half_x: float, half_y: float, radius: float, z: float) -> Points:
    """A rounded rectangle, 24 points from the right side's lower end on, ``(24, 3)``."""
    flat = _CORNERS * (half_x - radius, half_y - radius) + _ARCS * radius
    return np.column_stack([flat, np.full(len(flat), z)])


class Tote(NamedTuple):
    """A tote's measures in tote lengths (the outer length is 1) and its looks.

    A notch is a cut-out in the silhouette of the short sides, 0 deep for none; ``wear`` is the amount of scuffs, 0…1.
    """

    half_y: float
    rim: float
    lip: float
    slope: float
    notch: float
    notch_half: float
    colour: Colour
    wear: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Tote:
        """A random one."""
        *shares, _, wear = rng.random(8).tolist()
        ranges = zip(_MEASURES.items(), shares, strict=True)
        measures = {name: least + span * share for (name, (least, span)), share in ranges}
        if rng.random() >= 0.8:
            measures['notch'] = 0.0
        return cls(**measures, colour=paint.tote_colour(rng), wear=wear)

    @property
    def floor_half(self) -> tuple[float, float]:
        """Half the floor's length and width."""
        return 0.5 - self.lip - self.slope, self.half_y - self.lip - self.slope

    def silhouette(self) -> Points:
        """The rim's outer outline with its cut-outs, ``(N, 3)``."""
        ring = rounded(0.5, self.half_y, 0.035, self.rim)
        if self.notch == 0.0:
            return ring
        half, depth, z = self.notch_half, self.notch, self.rim
        left = [(-0.5, half, z), (-0.5 + depth, half - depth, z), (-0.5 + depth, depth - half, z), (-0.5, -half, z)]
        right = [(-x, -y, z) for x, y, z in left]
        return np.concatenate([ring[:12], left, ring[12:], right])

    def inner(self, share: float = 0.0, height: float = 1.0) -> Points:
        """The walls' inner outline at a share of the way from rim to floor, and of the rim's height, ``(24, 3)``."""
        inwards = share * self.slope
        return rounded(0.5 - self.lip - inwards, self.half_y - self.lip - inwards, 0.034, height * self.rim)


def paint_tote(canvas: Canvas, tote: Tote, rng: np.random.Generator) -> None:
    """Draw a tote: rim, walls, floor, in this order; the canvas' mask becomes its silhouette."""
    unit_px = canvas.camera.scale_px(tote.rim)
    thin_px, floor_edge_px = round(0.004 * unit_px), round(0.006 * unit_px)
    outline = tote.silhouette()
    paint.fill_polygon(canvas.image, canvas.project(outline - (0, 0, 0.05)), paint.lit(tote.colour, 0.35))
    canvas.fill(outline, paint.lit(tote.colour, 1.04))
    canvas.line(outline, paint.lit(tote.colour, 0.62), thin_px, closed=True)
    _paint_walls(canvas, tote)
    _paint_ribs(canvas, tote, int(rng.integers(0, 6)))
    canvas.line(tote.inner(), paint.lit(tote.colour, 0.5), thin_px, closed=True)
    x, y = tote.floor_half
    base = paint.lit(tote.colour, 0.86)
    floor = rounded(x, y, 0.03, 0.0)
    canvas.fill(floor, base)
    canvas.line(floor, paint.lit(tote.colour, 0.58), floor_edge_px, closed=True)
    canvas.line(rounded(x * 0.965, y * 0.95, 0.02, 0.0), paint.lit(tote.colour, 0.93), thin_px, closed=True)
    if rng.random() < 0.3:
        for i in range(1, 6):
            place = x * (i / 3 - 1)
            canvas.line(np.array([(place, -y, 0), (place, y, 0)]), paint.lit(base, 0.93), thin_px)
    for _ in range(int(6 + 50 * tote.wear)):  # scuffs
        a, b, da, db = rng.uniform(-1, 1, 4)
        scuff = np.array([(a * x * 0.95, b * y * 0.95, 0.0)] * 2)
        scuff[1] += (0.06 * da * da * da, 0.06 * db * db * db, 0.0)
        canvas.line(scuff, paint.lit(base, 0.86 + 0.28 * float(rng.random())), round(0.002 * unit_px))
    if rng.random() < 0.3:  # a barcode on the rim
        left, middle, half, z = float(rng.uniform(-0.3, 0.2)), tote.half_y - 0.5 * tote.lip, 0.3 * tote.lip, tote.rim
        near, far = middle - half, middle + half
        canvas.fill(level_quad(left, near, left + 0.09, far, z), paint.mixed(paint.WHITE, tote.colour, 0.2))
        for bar in np.linspace(left + 0.015, left + 0.075, 7):
            ends = np.array([(bar, near + 0.1 * tote.lip, z), (bar, far - 0.1 * tote.lip, z)])
            canvas.line(ends, (40, 40, 40), round(0.003 * unit_px))


def _paint_walls(canvas: Canvas, tote: Tote) -> None:
    rings = [tote.inner(share, height) for share, height, _ in _LEVELS]
    pixels = [paint.fixed(canvas.project(ring)) for ring in rings]
    edges = np.roll(rings[0], -1, axis=0) - rings[0]
    for k, (x, y, _) in enumerate(edges.tolist()):
        j, size = (k + 1) % len(edges), math.hypot(x, y)
        shade = 0.35 + 0.6 * canvas.shade((-y / size * 0.95, x / size * 0.95, 0.3))
        for upper, lower, (_, _, factor) in zip(pixels, pixels[1:], _LEVELS[1:], strict=False):
            corners = np.array([upper[k], upper[j], lower[j], lower[k]])
            cv2.fillConvexPoly(canvas.image, corners, paint.lit(tote.colour, factor * shade), cv2.LINE_8, 4)


def _paint_ribs(canvas: Canvas, tote: Tote, count: int) -> None:
    """Stiffening ribs on the long walls."""
    x, y = 0.5 - tote.lip, tote.half_y - tote.lip
    top, low, wide = 0.76 * tote.rim, 0.05 * tote.rim, 0.007
    for i in range(count):
        place = 0.66 * x * (2 * (i + 0.5) / count - 1)
        for sign in (-1, 1):
            shade = 0.82 * (0.35 + 0.6 * canvas.shade((0.0, -0.95 * sign, 0.3)))
            upper, lower = sign * (y - 0.32 * tote.slope), sign * (y - 0.95 * tote.slope)
            for a, factor in ((place - wide, 1.18), (place, 0.78)):
                b = a + wide
                rib = np.array([(a, upper, top), (b, upper, top), (b, lower, low), (a, lower, low)])
                canvas.fill(rib, paint.lit(tote.colour, factor * shade))


def _clutter(canvas: Pixels, rng: np.random.Generator, unit_px: float) -> None:
    """Rails, cables, marking tape and plates of a work cell, for the zoomed-out view."""
    rows, columns = canvas.shape[:2]
    for _ in range(int(rng.integers(3, 8))):
        style = int(rng.integers(4))
        x, y = int(rng.random() * columns), int(rng.random() * rows)
        colour = paint.toned(_PAINTS[int(rng.integers(len(_PAINTS)))], rng)
        thick = max(2, int(unit_px * rng.uniform(0.02, 0.12)))
        if style < 2:
            start, end = ((x, 0), (x, rows)) if style else ((0, y), (columns, y))
            cv2.line(canvas, start, end, colour, thick)
            cv2.line(canvas, start, end, paint.toned(colour, rng, 1.4), max(1, thick // 8))
        elif style == 2:
            along = np.linspace(0, 1, 24)
            bend = 0.12 * np.sin(along * rng.uniform(2, 7) + 6 * rng.random()) + rng.uniform(-0.4, 0.4) * along
            points = np.stack([along * columns, y + bend * rows], axis=1)
            cv2.polylines(canvas, [points.astype(np.int32)], False, (20, 20, 22), max(1, thick // 4), cv2.LINE_AA)
        else:
            width, height = (int(unit_px * value) for value in rng.uniform(0.1, 0.35, 2))
            cv2.rectangle(canvas, (x, y), (x + width, y + height), colour, -1)
            cv2.rectangle(canvas, (x, y), (x + width, y + height), paint.toned(colour, rng, 0.5), max(1, thick // 6))


def paint_surround(canvas: Pixels, rng: np.random.Generator, unit_px: float, cluttered: bool) -> None:
    """Fill the canvas ``(H, W, 3) uint8`` with what lies around a tote: rollers, or a dark hall."""
    rows, columns = canvas.shape[:2]
    if rng.random() < 0.25:
        pitch = max(4, int(unit_px * rng.uniform(0.06, 0.1)))
        profile = np.sin(np.linspace(0, np.pi, pitch)) ** 0.7 * rng.uniform(25, 60)
        canvas[:] = np.resize(profile, rows)[:, None, None].astype(np.uint8)
    else:
        level = float(rng.uniform(20, 80) if cluttered else rng.uniform(14, 44))
        patch = paint.smooth_noise(rng, 64, 48, 9)[:, :, None] * 0.6 + 0.7
        canvas[:] = cv2.resize(np.clip(patch * level * (0.97, 0.98, 0.98), 0, 255).astype(np.uint8), (columns, rows))
    if cluttered:
        _clutter(canvas, rng, unit_px)


class Bench(NamedTuple):
    """Where the copies of same-object lie, in lengths of its own; ``cells`` counts compartments along x and y."""

    half_y: float
    cells: tuple[int, int] | None
    is_tray: bool
    colour: Colour
    table: Colour
    rim: float = 0.0

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Bench:
        """A random one: a dark tray, a light table, or compartments."""
        style, level, half_y = int(rng.integers(3)), int(rng.integers(-15, 16)), float(rng.uniform(0.34, 0.37))
        cells = (int(rng.integers(2, 5)), int(rng.integers(2, 4))) if style == 2 else None
        table = (205 + level, 208 + level, 210 + level)
        colour = table if style == 1 else (52 + level, 50 + level, 48 + level)
        return cls(half_y, cells, style != 1, colour, table)

    @property
    def floor_half(self) -> tuple[float, float]:
        """Half the length and width of where things lie."""
        return 0.45, self.half_y - 0.05


def paint_bench(canvas: Canvas, bench: Bench, rng: np.random.Generator) -> None:
    """Fill the canvas with a bench and the table around it."""
    canvas.image[:] = paint.lit(bench.table, 0.9)
    half_x, half_y = bench.floor_half
    if bench.is_tray:
        for grown, shade in ((0.05, 1.5), (0.03, 0.7), (0.0, 1.0)):
            canvas.fill(rounded(half_x + grown, half_y + grown, 0.04, 0.0), paint.lit(bench.colour, shade))
    columns, rows = bench.cells or (1, 1)
    walls = [((x, -half_y, 0.0), (x, half_y, 0.0)) for i in range(1, columns) for x in [half_x * (2 * i / columns - 1)]]
    walls += [((-half_x, y, 0.0), (half_x, y, 0.0)) for i in range(1, rows) for y in [half_y * (2 * i / rows - 1)]]
    for wall in walls:
        canvas.line(np.array(wall), paint.lit(bench.colour, 1.6), max(2, round(0.02 * canvas.camera.scale_px(0.0))))
    for _ in range(int(rng.integers(4, 20))):  # scratches
        x, y, dx, dy = rng.uniform(-1, 1, 4) * (half_x, half_y, 0.04, 0.04)
        mark = np.array([(x, y, 0.0), (x + dx, y + dy, 0.0)])
        canvas.line(mark, paint.lit(bench.colour, float(rng.uniform(0.85, 1.2))))
