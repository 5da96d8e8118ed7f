"""The tote and its surroundings: conveyor, frame, dark hall."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from armbench_mmdet.minibench.camera import Camera, Light, Points, cos_sin, level_quad
from armbench_mmdet.minibench.paint import (
    WHITE,
    Colour,
    Pixels,
    fill_polygon,
    fixed,
    lit,
    mixed,
    smooth_noise,
    toned,
    tote_colour,
)

_CORNER_STEPS = 5
_ARCS = np.array([cos_sin(math.pi / 2 * (q + i / _CORNER_STEPS)) for q in range(4) for i in range(_CORNER_STEPS + 1)])
_CORNERS = np.repeat(np.array([(1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)]), _CORNER_STEPS + 1, axis=0)


@dataclass(frozen=True)
class Tote:
    """A tote's measures in tote lengths (the outer length is 1) and its looks.

    Attributes:
        half_y: Half the outer width.
        rim: Height of the rim above the floor.
        lip: Width of the rim.
        slope: How far the walls come in from rim to floor.
        notch: Depth of the cut-outs in the short sides' silhouette; 0 for none.
        notch_half: Half their length.
        post: Depth of the handle posts inside the short walls; 0 for none.
        colour: The plastic.
        wear: Amount of scuffs, 0…1.
    """

    half_y: float
    rim: float
    lip: float
    slope: float
    notch: float
    notch_half: float
    post: float
    colour: Colour
    wear: float

    @property
    def floor_half(self) -> tuple[float, float]:
        """Half the floor's length and width."""
        return 0.5 - self.lip - self.slope, self.half_y - self.lip - self.slope


def sample_tote(rng: np.random.Generator) -> Tote:
    """A random tote."""
    a = [float(value) for value in rng.random(8)]
    notch = 0.012 + 0.016 * a[4] if rng.random() < 0.8 else 0.0
    post = 0.022 + 0.016 * a[6] if rng.random() < 0.75 else 0.0
    return Tote(
        half_y=0.31 + 0.035 * a[0],
        rim=0.24 + 0.09 * a[1],
        lip=0.026 + 0.014 * a[2],
        slope=0.022 + 0.03 * a[3],
        notch=notch,
        notch_half=0.13 + 0.05 * a[5],
        post=post,
        colour=tote_colour(rng),
        wear=a[7],
    )


def rounded(half_x: float, half_y: float, radius: float, z: float, centre: tuple[float, float] = (0.0, 0.0)) -> Points:
    """A rounded rectangle, 24 points from the right side's lower end on, ``(24, 3)``."""
    points = np.empty((len(_CORNERS), 3))
    points[:, 0] = _CORNERS[:, 0] * (half_x - radius) + _ARCS[:, 0] * radius + centre[0]
    points[:, 1] = _CORNERS[:, 1] * (half_y - radius) + _ARCS[:, 1] * radius + centre[1]
    points[:, 2] = z
    return points


def silhouette(tote: Tote) -> Points:
    """The rim's outer outline with its cut-outs, ``(N, 3)``."""
    ring = rounded(0.5, tote.half_y, 0.035, tote.rim)
    if tote.notch == 0.0:
        return ring
    half, depth, z = tote.notch_half, tote.notch, tote.rim
    left = [(-0.5, half, z), (-0.5 + depth, half - depth, z), (-0.5 + depth, depth - half, z), (-0.5, -half, z)]
    right = [(-x, -y, z) for x, y, z in left]
    return np.concatenate([ring[:12], left, ring[12:], right])


class TotePainter:
    """Paints one tote on a canvas."""

    def __init__(self, canvas: Pixels, camera: Camera, light: Light, tote: Tote, rng: np.random.Generator) -> None:
        self.canvas, self.camera, self.light, self.tote, self.rng = canvas, camera, light, tote, rng
        self.unit_px = camera.scale_px(tote.rim)

    def paint(self) -> None:
        """Rim, walls, floor, in this order."""
        self._rim()
        self._walls()
        self._floor()
        if self.tote.post:
            self._posts()
        self._rim_details()

    def _fill(self, points: Points, colour: Colour) -> None:
        fill_polygon(self.canvas, self.camera.project(points), colour)

    def _line(self, points: Points, colour: Colour, width: float, closed: bool = False) -> None:
        pixels = fixed(self.camera.project(points))
        cv2.polylines(self.canvas, [pixels], closed, colour, max(1, round(width * self.unit_px)), cv2.LINE_AA, 4)

    def _rim(self) -> None:
        tote, colour = self.tote, self.tote.colour
        outline = silhouette(tote)
        skirt = outline.copy()
        skirt[:, 2] -= 0.05
        self._fill(skirt, lit(colour, 0.35))
        self._fill(outline, lit(colour, 1.04))
        self._line(outline, lit(colour, 0.62), 0.004, closed=True)
        step = rounded(0.5 - 0.3 * tote.lip, tote.half_y - 0.3 * tote.lip, 0.03, tote.rim)
        if tote.notch == 0.0:
            self._line(step, lit(colour, 1.22), 0.003, closed=True)

    def _walls(self) -> None:
        tote = self.tote
        x, y = 0.5 - tote.lip, tote.half_y - tote.lip
        levels = [(0.0, tote.rim, 0.95), (0.02, 0.97 * tote.rim, 0.7), (0.22, 0.80 * tote.rim, 0.92)]
        levels += [(0.30, 0.78 * tote.rim, 0.98), (0.48, 0.55 * tote.rim, 0.86), (0.7, 0.3 * tote.rim, 0.78)]
        levels += [(0.88, 0.12 * tote.rim, 0.70), (1.0, 0.0, 0.62)]
        rings = [rounded(x - share * tote.slope, y - share * tote.slope, 0.034, z) for share, z, _ in levels]
        pixels = [fixed(self.camera.project(ring)) for ring in rings]
        count = len(rings[0])
        for k in range(count):
            j = (k + 1) % count
            edge = rings[0][j] - rings[0][k]
            size = math.hypot(edge[0], edge[1]) or 1.0
            normal = (-float(edge[1]) / size * 0.95, float(edge[0]) / size * 0.95, 0.3)
            inward = (
                normal if normal[0] * rings[0][k][0] + normal[1] * rings[0][k][1] < 0 else (-normal[0], -normal[1], 0.3)
            )
            shade = 0.35 + 0.6 * self.light.shade(inward)
            for upper, lower, (_, _, factor) in zip(pixels, pixels[1:], levels[1:], strict=False):
                corners = np.array([upper[k], upper[j], lower[j], lower[k]])
                cv2.fillConvexPoly(self.canvas, corners, lit(tote.colour, factor * shade), cv2.LINE_8, 4)
        self._ribs(x, y)
        self._line(rings[0], lit(tote.colour, 0.5), 0.004, closed=True)

    def _ribs(self, x: float, y: float) -> None:
        """Stiffening ribs on the long walls, a grip opening in the short ones."""
        tote = self.tote
        count = int(self.rng.integers(0, 6))
        top, low, wide = 0.76 * tote.rim, 0.05 * tote.rim, 0.007
        for i in range(count):
            place = 0.66 * x * (2 * (i + 0.5) / count - 1)
            for sign in (-1, 1):
                shade = 0.82 * (0.35 + 0.6 * self.light.shade((0.0, -0.95 * sign, 0.3)))
                upper, lower = sign * (y - 0.32 * tote.slope), sign * (y - 0.95 * tote.slope)
                for shift, factor in ((-wide, 1.18), (0.0, 0.78)):
                    a, b = place + shift, place + shift + wide
                    rib = np.array([(a, upper, top), (b, upper, top), (b, lower, low), (a, lower, low)])
                    self._fill(rib, lit(tote.colour, factor * shade))
        if self.rng.random() < 0.5:
            for sign in (-1, 1):
                a, b = sign * (x - 0.3 * tote.slope), sign * (x - 0.45 * tote.slope)
                grip = [(a, -0.07, 0.74 * tote.rim), (a, 0.07, 0.74 * tote.rim)]
                grip += [(b, 0.06, 0.58 * tote.rim), (b, -0.06, 0.58 * tote.rim)]
                self._fill(np.array(grip), lit(tote.colour, 0.24))
                self._line(np.array(grip), lit(tote.colour, 0.6), 0.003, closed=True)

    def _floor(self) -> None:
        tote, rng = self.tote, self.rng
        half_x, half_y = tote.floor_half
        base = lit(tote.colour, 0.86)
        self._fill(rounded(half_x, half_y, 0.03, 0.0), base)
        self._line(rounded(half_x, half_y, 0.03, 0.0), lit(tote.colour, 0.58), 0.006, closed=True)
        self._line(rounded(half_x * 0.965, half_y * 0.95, 0.02, 0.0), lit(tote.colour, 0.93), 0.004, closed=True)
        style = int(rng.integers(3))
        if style == 1:
            for i in range(1, 6):
                place = half_x * (i / 3 - 1)
                self._line(np.array([(place, -half_y, 0), (place, half_y, 0)]), lit(base, 0.93), 0.004)
        if style == 2:
            for radius in (0.03, 0.05):
                self._line(self._ring(0, 0, radius, 0.0), lit(base, 0.9), 0.003, closed=True)
        for sx in (-1, 1):
            for sy in (-1, 1):
                self._fill(self._ring(sx * half_x * 0.68, sy * half_y * 0.62, 0.008, 0.0), lit(base, 0.4))
        for _ in range(int(6 + 50 * tote.wear)):
            a, b, da, db = rng.uniform(-1, 1, 4)
            start = (a * half_x * 0.95, b * half_y * 0.95, 0.0)
            stop = (start[0] + 0.06 * da * da * da, start[1] + 0.06 * db * db * db, 0.0)
            self._line(np.array([start, stop]), lit(base, 0.86 + 0.28 * float(rng.random())), 0.002)

    def _ring(self, x: float, y: float, radius: float, z: float) -> Points:
        return rounded(radius, radius, radius, z, (x, y))

    def _block(self, x0: float, x1: float, y0: float, y1: float, low: float, high: float) -> None:
        """A post from the short wall: side faces, then the front towards the middle, then its top."""
        colour = self.tote.colour
        for y, sign in ((y0, -1), (y1, 1)):
            if self.camera.sees(np.array([x1, y, high]), (0.0, float(sign), 0.0)):
                side = np.array([(x0, y, high), (x1, y, high), (x1, y, low), (x0, y, low)])
                self._fill(side, lit(colour, 0.38 + 0.4 * self.light.shade((0.0, float(sign), 0.0))))
        facing = 1.0 if x1 > x0 else -1.0
        front = np.array([(x1, y0, high), (x1, y1, high), (x1, y1, low), (x1, y0, low)])
        self._fill(front, lit(colour, 0.42 + 0.5 * self.light.shade((facing * 0.95, 0.0, 0.3))))
        top = level_quad(x0, y0, x1, y1, high)
        self._fill(top, lit(colour, 1.06))
        self._line(top, lit(colour, 0.7), 0.003, closed=True)
        middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
        inset = np.array([(middle_x, middle_y, 0.0)]) + (top - (middle_x, middle_y, 0.0)) * (0.5, 0.55, 1.0)
        self._line(inset, lit(colour, 0.78), 0.003, closed=True)

    def _posts(self) -> None:
        tote = self.tote
        x = 0.5 - tote.lip
        for side in (-1, 1):
            for y in (-tote.notch_half - 0.05, tote.notch_half - 0.01):
                self._block(side * (x + 0.004), side * (x - tote.post), y, y + 0.06, 0.3 * tote.rim, tote.rim)

    def _rim_details(self) -> None:
        """Holes along the rim, handle slots, at times a sticker."""
        tote, rng = self.tote, self.rng
        z, dark = tote.rim, lit(tote.colour, 0.22)
        x, y = 0.5 - 0.5 * tote.lip, tote.half_y - 0.5 * tote.lip
        count = int(rng.integers(3, 7))
        hole = 0.0045
        for i in range(count):
            place = x * (2 * i / (count - 1) - 1) * 0.97
            for sign in (-1, 1):
                self._fill(self._ring(place, sign * y, hole, z), dark)
        for sign in (-1, 1):
            for place in (-0.75, -0.48, 0.48, 0.75):
                self._fill(self._ring(sign * (x + 0.1 * tote.lip), place * y, hole, z), dark)
            inner = sign * (0.5 - 0.6 * tote.lip - 0.6 * tote.notch)
            for place in (-0.05, 0.05):
                self._fill(rounded(0.007, 0.016, 0.0065, z, (inner, place)), dark)
        if rng.random() < 0.3:
            left = float(rng.uniform(-0.3, 0.2))
            side = 1 if rng.random() < 0.5 else -1
            tag = [(left, y - 0.3 * tote.lip), (left + 0.09, y - 0.3 * tote.lip)]
            tag += [(left + 0.09, y + 0.3 * tote.lip), (left, y + 0.3 * tote.lip)]
            self._fill(np.array([(a, side * b, z) for a, b in tag]), mixed(WHITE, tote.colour, 0.2))
            for i in range(7):
                bar = np.array([(left + 0.015 + 0.01 * i, side * (y - 0.2 * tote.lip), z)] * 2)
                bar[1, 1] = side * (y + 0.2 * tote.lip)
                self._line(bar, (40, 40, 40), 0.003)


# Steel, dark steel, safety yellow, machine blue and green, in the hall's dim light.
_PAINTS: tuple[Colour, ...] = ((82, 84, 86), (60, 61, 62), (48, 48, 50), (30, 110, 130), (110, 72, 40), (62, 84, 52))


def _rollers(canvas: Pixels, rng: np.random.Generator, unit_px: float) -> None:
    rows = canvas.shape[0]
    pitch = max(4, int(unit_px * rng.uniform(0.06, 0.1)))
    base = float(rng.uniform(25, 60))
    profile = np.sin(np.linspace(0, np.pi, pitch)) ** 0.7
    column = np.resize(profile, rows)[:, None, None] * base * np.array([1.0, 1.0, 0.98])
    canvas[:] = column.astype(np.uint8)


def _bar(canvas: Pixels, rng: np.random.Generator, unit_px: float, y_px: int) -> None:
    """A light metal rail with slots."""
    columns = canvas.shape[1]
    level = int(rng.integers(95, 185))
    x0, x1 = int(columns * rng.uniform(0.0, 0.3)), int(columns * rng.uniform(0.6, 1.0))
    thick = max(3, int(unit_px * rng.uniform(0.03, 0.07)))
    top = max(0, y_px - thick)
    cv2.rectangle(canvas, (x0, top), (x1, y_px), (level, level, int(level * 0.97)), -1)
    cv2.line(canvas, (x0, y_px), (x1, y_px), (level // 2,) * 3, max(1, thick // 6))
    for share in (0.1, 0.9):
        x = int(x0 + share * (x1 - x0))
        cv2.ellipse(
            canvas, (x, y_px - thick // 4), (max(2, thick // 2), max(1, thick // 4)), 0, 0, 360, (16, 16, 16), -1
        )


def _clutter(canvas: Pixels, rng: np.random.Generator, unit_px: float) -> None:
    """Rails, cables, marking tape and plates of a work cell, for the zoomed-out view."""
    rows, columns = canvas.shape[:2]
    for _ in range(int(rng.integers(3, 8))):
        style = int(rng.integers(4))
        x, y = int(rng.random() * columns), int(rng.random() * rows)
        colour = toned(_PAINTS[int(rng.integers(len(_PAINTS)))], rng)
        thick = max(2, int(unit_px * rng.uniform(0.02, 0.12)))
        if style == 0:
            cv2.rectangle(canvas, (x, 0), (x + thick, rows), colour, -1)
            cv2.line(canvas, (x, 0), (x, rows), toned(colour, rng, 1.4), max(1, thick // 8))
        elif style == 1:
            cv2.rectangle(canvas, (0, y), (columns, y + thick), colour, -1)
            cv2.line(canvas, (0, y), (columns, y), toned(colour, rng, 1.4), max(1, thick // 8))
        elif style == 2:
            along = np.linspace(0, 1, 24)
            bend = 0.12 * np.sin(along * rng.uniform(2, 7) + 6 * rng.random()) + rng.uniform(-0.4, 0.4) * along
            points = np.stack([along * columns, y + bend * rows], axis=1)
            cv2.polylines(canvas, [points.astype(np.int32)], False, (20, 20, 22), max(1, thick // 4), cv2.LINE_AA)
        else:
            width, height = (int(unit_px * value) for value in rng.uniform(0.1, 0.35, 2))
            cv2.rectangle(canvas, (x, y), (x + width, y + height), colour, -1)
            cv2.rectangle(canvas, (x, y), (x + width, y + height), toned(colour, rng, 0.5), max(1, thick // 6))


def paint_surround(canvas: Pixels, rng: np.random.Generator, unit_px: float, tote_top_px: int, cluttered: bool) -> None:
    """Fill the canvas with what lies around the tote.

    Args:
        canvas: ``(H, W, 3) uint8``, painted over.
        rng: Source of randomness.
        unit_px: Pixels per tote length.
        tote_top_px: Row of the tote's upper edge.
        cluttered: Whether much of it is seen.
    """
    rows, columns = canvas.shape[:2]
    style = int(rng.integers(4))
    if style == 0:
        _rollers(canvas, rng, unit_px)
    else:
        level = float(rng.uniform(14, 44)) if not cluttered else float(rng.uniform(20, 80))
        tint = np.array([1.0, 0.97, 0.95]) if style == 1 else np.array([0.95, 0.98, 1.0])
        patch = smooth_noise(rng, 64, 48, 9)[:, :, None] * 0.6 + 0.7
        canvas[:] = cv2.resize(np.clip(patch * level * tint, 0, 255).astype(np.uint8), (columns, rows))
    if cluttered:
        _clutter(canvas, rng, unit_px)
    if rng.random() < 0.55:
        _bar(canvas, rng, unit_px, tote_top_px + int(0.004 * unit_px))
    if rng.random() < 0.3:
        side = 0 if rng.random() < 0.5 else columns - max(2, int(0.02 * unit_px))
        canvas[:, side : side + max(2, int(0.02 * unit_px))] = toned((90, 92, 95), rng)
