"""Bottles, rolls, tubes, cans, tape, balls: lying and standing solids."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.minibench import labels
from armbench_mmdet.minibench.camera import Points, circle, cos_sin, level_quad
from armbench_mmdet.minibench.paint import (
    WHITE,
    Brush,
    Colour,
    Pixels,
    accent_colour,
    add_glare,
    lit,
    object_colour,
    print_colour,
    spot,
    toned,
)

Profile = list[tuple[float, float]]
"""Places along the axis (−0.5…0.5 of the length) with the radius there (0…1 of the largest)."""

_RIM = [cos_sin(2 * math.pi * i / 20) for i in range(20)]


def shaded(texture: Pixels, shade: NDArray[np.float32]) -> Pixels:
    """A texture times brightness factors, each ``(h, w)``."""
    return cv2.multiply(texture, np.repeat(shade[:, :, None], 3, axis=2).astype(np.float32), dtype=cv2.CV_8U)


def _turned(flat: Pixels, profile: Profile, light: tuple[float, float], gloss: float) -> Pixels:
    """An unrolled texture around a lying solid of revolution, as it looks from above."""
    rows, columns = flat.shape[:2]
    x = (np.arange(columns) + 0.5) / columns - 0.5
    radii = np.interp(x, [p[0] for p in profile], [p[1] for p in profile]).astype(np.float32)
    v = ((np.arange(rows, dtype=np.float32) + 0.5) / rows * 2 - 1)[:, None]
    side = np.clip(v / np.maximum(radii, 0.05)[None, :], -0.999, 0.999)
    facing = (np.sqrt(1 - side * side) + side * np.float32(light[1])) * np.float32(0.8)
    shade = np.float32(0.38) + np.float32(0.72) * np.clip(facing, 0, 1)
    glint = np.clip(1 - np.abs(side - np.float32(0.45 * light[1])) * np.float32(5.5), 0, 1)
    map_x = np.tile(np.arange(columns, dtype=np.float32), (rows, 1))
    map_y = (np.arcsin(side) * np.float32(2 / math.pi) + 1) * np.float32(0.5 * (rows - 1))
    wrapped = cv2.remap(flat, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return add_glare(shaded(wrapped, shade), glint * glint * np.float32(gloss))


def paint_turned(brush: Brush, flat: Pixels, profile: Profile, ends: tuple[Colour, Colour], gloss: float) -> None:
    """Draw a lying solid of revolution, whose largest diameter is the size's width, in an unrolled texture."""
    length, width, height = brush.size
    radius, axis, x = width / 2, height / 2, length / 2
    caps = ((profile[0], ends[0], -1.0), (profile[-1], ends[1], 1.0))

    def disc(place: float, share: float) -> Points:
        return np.array([(place * length, share * radius * c, axis * (1 + share * s)) for c, s in _RIM])

    for (place, share), colour, to in caps:
        brush.hull(disc(place, share), colour, 0.4 + 0.5 * brush.shade((to, 0.0, 0.0)))
    places = [(x * length, r * radius) for x, r in profile]
    outline = [(x, r, axis) for x, r in places] + [(x, -r, axis) for x, r in reversed(places)]
    texture = _turned(flat, profile, brush.light_on_texture(), gloss)
    brush.face(texture, level_quad(-x, -radius, x, radius, axis), np.array(outline))
    for (place, share), colour, to in caps:
        if brush.sees((to * x, 0, axis), (to, 0, 0)):
            brush.hull(disc(place, share), colour, 0.72)
            brush.hull(disc(place, 0.7 * share), colour, 0.55)


def _bands(flat: Pixels, spans: list[tuple[float, float, Colour]]) -> None:
    columns = flat.shape[1]
    for start, stop, colour in spans:
        flat[:, int(start * columns) : max(int(start * columns) + 1, int(stop * columns))] = colour


def _label(flat: Pixels, rng: np.random.Generator, start: float, stop: float, base: Colour) -> None:
    rows, columns = flat.shape[:2]
    first, last = int(start * columns), int(stop * columns)
    if last - first > 5:
        flat[:, first:last] = labels.design(rng, last - first, rows, base)
        if rng.random() < 0.5:
            part = np.ascontiguousarray(flat[:, first:last])
            labels.sticker(part, rng, 0.3)
            flat[:, first:last] = part


def paint_bottle(brush: Brush, rng: np.random.Generator) -> None:
    """A lying bottle: body, shoulder, neck and cap, with a label around the body."""
    length, width, _ = brush.size
    base = object_colour(rng, brush.floor)
    neck, cap = 0.30 + 0.35 * rng.random(), 0.10 + 0.06 * rng.random()
    shoulder = 0.5 - cap - 0.06 - 0.12 * rng.random()
    if rng.random() < 0.35:
        neck, shoulder, cap = 0.8, 0.24, 0.2
    profile = [(-0.5, 0.86), (-0.475, 1.0), (shoulder, 1.0), (shoulder + 0.035, 0.93)]
    profile += [(0.5 - cap - 0.015, neck * 0.9), (0.5 - cap, neck), (0.49, neck), (0.5, neck * 0.9)]
    flat = labels.blank(*brush.texture_px(length, width), base)
    lid = accent_colour(rng, base)
    _bands(flat, [(1 - cap, 1.0, lid)])
    ridge = max(2, flat.shape[0] // 14)
    flat[::ridge, int((1 - cap) * flat.shape[1]) :] = toned(lid, rng, 0.75)
    _label(flat, rng, 0.12, shoulder + 0.45, accent_colour(rng, base) if rng.random() < 0.7 else base)
    paint_turned(brush, flat, profile, (base, lid), 0.25 + 0.6 * rng.random())


def paint_roll(brush: Brush, rng: np.random.Generator) -> None:
    """A lying can, poster tube or roll with flat ends."""
    length, width, _ = brush.size
    base = object_colour(rng, brush.floor)
    flat = labels.blank(*brush.texture_px(length, width), base)
    metal: Colour = (170, 172, 174)
    rim = 0.02 + 0.03 * rng.random()
    if rng.random() < 0.75:
        _label(flat, rng, rim, 1 - rim, base)
    ends = (metal, metal) if rng.random() < 0.5 else (toned(base, rng, 0.7), toned(base, rng, 0.7))
    _bands(flat, [(0, rim, ends[0]), (1 - rim, 1, ends[1])])
    paint_turned(brush, flat, [(-0.5, 1.0), (0.5, 1.0)], ends, 0.15 + 0.6 * rng.random())


def paint_tube(brush: Brush, rng: np.random.Generator) -> None:
    """A squeeze tube: a flat crimped end, and a body that narrows towards the cap."""
    length, width, _ = brush.size
    base = object_colour(rng, brush.floor)
    cap = 0.13 + 0.06 * rng.random()
    flat = labels.blank(*brush.texture_px(length, width), base)
    _label(flat, rng, 0.14, 0.8 - cap, base)
    lid = WHITE if rng.random() < 0.4 else print_colour(rng)
    _bands(flat, [(0.03, 0.05, toned(base, rng, 0.7)), (1 - cap, 1, lid)])
    profile = [(-0.5, 1.0), (-0.42, 0.99), (0.42 - cap, 0.72), (0.5 - cap, 0.5), (0.5, 0.46)]
    paint_turned(brush, flat, profile, (base, lid), 0.3 + 0.5 * rng.random())


_SIDES = 28


def _side(brush: Brush, radius: float, span: tuple[float, float], colour: Colour) -> None:
    """The visible side of an upright cylinder between two heights."""
    low, high = span
    px = brush.project(np.concatenate([circle(radius, low, _SIDES), circle(radius, high, _SIDES)]))
    ring = circle(1.0, 0.0, _SIDES)
    for i in range(_SIDES):
        j = (i + 1) % _SIDES
        quad = px[[i, j, _SIDES + j, _SIDES + i]]
        (ax, ay), (bx, by) = quad[2] - quad[0], quad[3] - quad[1]
        if ax * by - ay * bx < 0:
            normal = (float(ring[i, 0] + ring[j, 0]) / 2, float(ring[i, 1] + ring[j, 1]) / 2, 0.0)
            brush.fill_px(quad, lit(colour, brush.shade(normal)))


def _disc(brush: Brush, radius: float, z: float, colour: Colour, shade: float = 1.0) -> None:
    brush.fill(circle(radius, z, _SIDES), colour, shade)


def paint_can(brush: Brush, rng: np.random.Generator) -> None:
    """A standing tin with printed side, metal lid and pull tab."""
    _, width, height = brush.size
    base = object_colour(rng, brush.floor)
    radius = width / 2
    _disc(brush, radius, 0.0, base, 0.6)
    _side(brush, radius, (0.0, 0.3 * height), accent_colour(rng, base))
    _side(brush, radius, (0.3 * height, height * 0.96), base)
    _side(brush, radius, (0.96 * height, height), (150, 152, 155))
    for share, shade in ((1.0, 0.75), (0.93, 1.15), (0.84, 0.8), (0.8, 1.0)):
        _disc(brush, radius * share, height, (165, 168, 170), shade)
    turn = int(rng.integers(24))
    far, near = circle(0.55 * radius, height, 24), circle(0.3 * radius, height, 24)
    tab = np.array([far[turn - 1], far[turn], near[(turn + 3) % 24], near[turn - 4]])
    brush.line(tab, (95, 98, 100), brush.px(radius * 0.1), closed=True)


def paint_tape(brush: Brush, rng: np.random.Generator) -> None:
    """A roll of tape lying flat; the cardboard core shows the inside, and counts as part of the roll."""
    _, width, height = brush.size
    base = object_colour(rng, brush.floor)
    radius = width / 2
    _disc(brush, radius, 0.0, base, 0.6)
    _side(brush, radius, (0.0, height), base)
    for i in range(5):
        _disc(brush, radius * (1 - 0.07 * i), height, base, 1.05 if i % 2 else 0.92)
    _disc(brush, radius * 0.66, height, (120, 165, 200))
    _disc(brush, radius * 0.58, height, toned(brush.floor, rng, 0.5))
    _disc(brush, radius * 0.54, height * 0.2, toned(brush.floor, rng, 0.75))


def paint_ball(brush: Brush, rng: np.random.Generator) -> None:
    """A ball with a word or a stripe."""
    _, width, height = brush.size
    base = object_colour(rng, brush.floor)
    columns, rows = brush.texture_px(width, width)
    texture = labels.blank(columns, rows, base)
    if rng.random() < 0.4:
        box = labels.part(columns, rows, 0.2, 0.38, 0.8, 0.62)
        labels.write_word(texture, box, labels.word(rng), accent_colour(rng, base))
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
    ball = add_glare(shaded(texture, shade), spot(columns, rows, 0.5 + 0.22 * lx, 0.5 + 0.22 * ly, 0.13), 0.7)
    cx, cy = centre
    quad = level_quad(cx - radius, cy - radius, cx + radius, cy + radius, z)
    brush.face(ball, quad, circle(radius, z, 32, centre))
