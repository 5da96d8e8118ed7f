"""Standing round things and balls: cans, jars, tape rolls, packs of cans."""

from __future__ import annotations

import cv2
import numpy as np

from armbench_mmdet.datasets.minibench import labels
from armbench_mmdet.datasets.minibench.brush import Brush, lit
from armbench_mmdet.datasets.minibench.camera import circle
from armbench_mmdet.datasets.minibench.difficulty import DEFAULT
from armbench_mmdet.datasets.minibench.fields import add_glare, spot
from armbench_mmdet.datasets.minibench.palette import Colour, accent_colour, object_colour, print_colour, toned

_SIDES = 28


def _cone(
    brush: Brush, centre: tuple[float, float], low: tuple[float, float], high: tuple[float, float], colour: Colour
) -> None:
    """The visible side of a cone's frustum; ``low`` and ``high`` are (radius, z)."""
    bottom, top = circle(low[0], low[1], _SIDES, centre), circle(high[0], high[1], _SIDES, centre)
    ring = circle(1.0, 0.0, _SIDES)
    px = brush.project(np.concatenate([bottom, top]))
    bottom_px, top_px = px[:_SIDES], px[_SIDES:]
    for i in range(_SIDES):
        j = (i + 1) % _SIDES
        quad = np.array([bottom_px[i], bottom_px[j], top_px[j], top_px[i]])
        (ax, ay), (bx, by) = quad[2] - quad[0], quad[3] - quad[1]
        if ax * by - ay * bx < 0:
            normal = (float(ring[i, 0] + ring[j, 0]) / 2, float(ring[i, 1] + ring[j, 1]) / 2, 0.0)
            brush.fill_px(quad, lit(colour, brush.shade(normal)))


def _disc(
    brush: Brush, centre: tuple[float, float], radius: float, z: float, colour: Colour, shade: float = 1.0
) -> None:
    brush.fill(circle(radius, z, _SIDES, centre), colour, shade)


def _can_top(brush: Brush, centre: tuple[float, float], radius: float, z: float, rng: np.random.Generator) -> None:
    """A metal lid with a pull tab."""
    for share, shade in ((1.0, 0.75), (0.93, 1.15), (0.84, 0.8), (0.8, 1.0)):
        _disc(brush, centre, radius * share, z, (165, 168, 170), shade)
    turn = int(rng.integers(24))
    far, near = circle(0.55 * radius, z, 24, centre), circle(0.3 * radius, z, 24, centre)
    tab = np.array([far[turn - 1], far[turn], near[(turn + 3) % 24], near[turn - 4]])
    brush.line(tab, (95, 98, 100), brush.px(radius * 0.1), closed=True)


def paint_can(brush: Brush, rng: np.random.Generator) -> None:
    """A standing tin with printed side and metal lid."""
    _, width, height = brush.size
    base = object_colour(rng, brush.floor, DEFAULT.min_contrast)
    radius = width / 2
    _disc(brush, (0, 0), radius, 0.0, base, 0.6)
    _cone(brush, (0, 0), (radius, 0.0), (radius, 0.3 * height), accent_colour(rng, base))
    _cone(brush, (0, 0), (radius, 0.3 * height), (radius, height * 0.96), base)
    _cone(brush, (0, 0), (radius, 0.96 * height), (radius, height), (150, 152, 155))
    _can_top(brush, (0, 0), radius, height, rng)


def paint_jar(brush: Brush, rng: np.random.Generator) -> None:
    """A standing jar or pot: body, shoulder and a screw lid with a printed disc."""
    _, width, height = brush.size
    base = object_colour(rng, brush.floor, DEFAULT.min_contrast)
    lid = accent_colour(rng, base) if rng.random() < 0.7 else toned(base, rng, 0.8)
    radius = width / 2
    neck = radius * (0.62 + 0.33 * rng.random())
    _disc(brush, (0, 0), radius, 0.0, base, 0.55)
    _cone(brush, (0, 0), (radius, 0.0), (radius, 0.62 * height), base)
    _cone(brush, (0, 0), (radius, 0.62 * height), (neck, 0.75 * height), toned(base, rng, 0.95))
    _disc(brush, (0, 0), radius, 0.62 * height, base)
    _disc(brush, (0, 0), radius * 0.9, 0.68 * height, base, 0.85)
    _disc(brush, (0, 0), neck, 0.75 * height, lid, 0.6)
    _cone(brush, (0, 0), (neck, 0.75 * height), (neck, height), lid)
    _disc(brush, (0, 0), neck, height, lid, 1.12)
    _disc(brush, (0, 0), neck * 0.86, height, lid, 0.92)
    if rng.random() < 0.6:
        _disc(brush, (0, 0), neck * 0.6, height, accent_colour(rng, lid))
    ridges = circle(neck, height, 40)
    inner = circle(neck * 0.92, height, 40)
    for i in range(0, 40, 2):
        brush.line(np.array([ridges[i], inner[i]]), toned(lid, rng, 0.7))


def paint_tape(brush: Brush, rng: np.random.Generator) -> None:
    """A roll of tape lying flat; the cardboard core shows the inside, and counts as part of the roll."""
    _, width, height = brush.size
    base = object_colour(rng, brush.floor, DEFAULT.min_contrast)
    radius = width / 2
    _disc(brush, (0, 0), radius, 0.0, base, 0.6)
    _cone(brush, (0, 0), (radius, 0.0), (radius, height), base)
    for i in range(5):
        _disc(brush, (0, 0), radius * (1 - 0.07 * i), height, base, 1.05 if i % 2 else 0.92)
    _disc(brush, (0, 0), radius * 0.66, height, (120, 165, 200))
    _disc(brush, (0, 0), radius * 0.58, height, toned(brush.floor, rng, 0.5))
    _disc(brush, (0, 0), radius * 0.54, height * 0.2, toned(brush.floor, rng, 0.75))


def paint_ball(brush: Brush, rng: np.random.Generator) -> None:
    """A ball: sphere shading over one, two or three colours."""
    _, width, height = brush.size
    base = object_colour(rng, brush.floor, DEFAULT.min_contrast)
    columns, rows = brush.texture_px(width, width)
    texture = labels.blank(columns, rows, base)
    style = int(rng.integers(3))
    if style == 0:
        labels.write_word(
            texture, labels.part(columns, rows, 0.2, 0.38, 0.8, 0.62), labels.word(rng), accent_colour(rng, base)
        )
    elif style == 1:
        colour = print_colour(rng)
        for shift in (-0.45, 0.45):
            centre = (int((0.5 + shift) * columns), rows // 2)
            cv2.ellipse(texture, centre, (columns // 4, rows // 2), 0, 0, 360, colour, max(2, rows // 12), cv2.LINE_AA)
    else:
        cv2.ellipse(texture, (columns // 2, rows // 2), (columns // 2, rows // 5), 30, 0, 360, print_colour(rng), -1)
    sphere_shade(brush, texture, (0.0, 0.0), width / 2, height / 2)


def sphere_shade(brush: Brush, texture: labels.Pixels, centre: tuple[float, float], radius: float, z: float) -> None:
    """Draw a sphere with a flat texture, shaded as a sphere."""
    rows, columns = texture.shape[:2]
    x = ((np.arange(columns, dtype=np.float32) + 0.5) / columns * 2 - 1)[None, :]
    y = ((np.arange(rows, dtype=np.float32) + 0.5) / rows * 2 - 1)[:, None]
    up = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    lx, ly = brush.light_on_texture()
    shade = np.float32(0.3) + np.float32(0.8) * np.clip(0.75 * up + np.float32(lx) * x + np.float32(ly) * y, 0, 1)
    ball = cv2.multiply(texture, np.repeat(shade[:, :, None], 3, axis=2).astype(np.float32), dtype=cv2.CV_8U)
    ball = add_glare(ball, spot(columns, rows, 0.5 + 0.22 * lx, 0.5 + 0.22 * ly, 0.13), 0.7)
    outline = circle(radius, z, 32, centre)
    cx, cy = centre
    quad = [(cx - radius, cy - radius, z), (cx + radius, cy - radius, z)]
    quad += [(cx + radius, cy + radius, z), (cx - radius, cy + radius, z)]
    brush.face(ball, np.array(quad), outline)


def paint_multipack(brush: Brush, rng: np.random.Generator) -> None:
    """Cans in rows under shrink film."""
    length, width, height = brush.size
    base = object_colour(rng, brush.floor, DEFAULT.min_contrast)
    columns = 3 if length > 1.3 * width else 2
    pitch_x, pitch_y = length / columns, width / 2
    radius = min(pitch_x, pitch_y) / 2
    x, y = length / 2, width / 2
    film = toned(base, rng, 0.75)
    low = np.array([(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0)])
    high = np.array([(-x, -y, height), (x, -y, height), (x, y, height), (-x, y, height)])
    brush.hull(np.concatenate([low * (0.95, 0.95, 1), high]), film, 0.7)
    brush.fill(high, film)
    for i in range(columns):
        for j in range(2):
            centre = (-x + (i + 0.5) * pitch_x, -y + (j + 0.5) * pitch_y)
            _disc(brush, centre, radius * 1.02, height, base, 0.8)
            _can_top(brush, centre, radius * 0.92, height, rng)
    for _ in range(9):
        a, b = rng.uniform(-0.5, 0.5, 2)
        da, db = rng.uniform(-0.12, 0.12, 2)
        streak = np.array([(a * length, b * width, height), ((a + da) * length * 0.9, (b + db) * width * 0.9, height)])
        brush.line(streak, (225, 228, 230), brush.px(0.002))
