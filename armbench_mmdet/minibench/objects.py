"""Kinds of objects: bottles, rolls, tins, tape and balls; bags, boxes and cards; each painted by a brush."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.minibench import paint
from armbench_mmdet.minibench.camera import Points, circle, cos_sin, level_quad
from armbench_mmdet.minibench.paint import Brush, Colour, Pixels

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
    return paint.add_glare(shaded(wrapped, shade), glint * glint * np.float32(gloss))


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
        flat[:, first:last] = paint.design(rng, last - first, rows, base)
        if rng.random() < 0.5:
            piece = np.ascontiguousarray(flat[:, first:last])
            paint.sticker(piece, rng, 0.3)
            flat[:, first:last] = piece


def paint_bottle(brush: Brush, rng: np.random.Generator) -> None:
    """A lying bottle: body, shoulder, neck and cap, with a label around the body."""
    length, width, _ = brush.size
    base = paint.object_colour(rng, brush.floor)
    neck, cap = 0.30 + 0.35 * rng.random(), 0.10 + 0.06 * rng.random()
    shoulder = 0.5 - cap - 0.06 - 0.12 * rng.random()
    if rng.random() < 0.35:
        neck, shoulder, cap = 0.8, 0.24, 0.2
    profile = [(-0.5, 0.86), (-0.475, 1.0), (shoulder, 1.0), (shoulder + 0.035, 0.93)]
    profile += [(0.5 - cap - 0.015, neck * 0.9), (0.5 - cap, neck), (0.49, neck), (0.5, neck * 0.9)]
    flat = paint.blank(*brush.texture_px(length, width), base)
    lid = paint.accent_colour(rng, base)
    _bands(flat, [(1 - cap, 1.0, lid)])
    ridge = max(2, flat.shape[0] // 14)
    flat[::ridge, int((1 - cap) * flat.shape[1]) :] = paint.toned(lid, rng, 0.75)
    _label(flat, rng, 0.12, shoulder + 0.45, paint.accent_colour(rng, base) if rng.random() < 0.7 else base)
    paint_turned(brush, flat, profile, (base, lid), 0.25 + 0.6 * rng.random())


def paint_roll(brush: Brush, rng: np.random.Generator) -> None:
    """A lying can, poster tube or roll with flat ends."""
    length, width, _ = brush.size
    base = paint.object_colour(rng, brush.floor)
    flat = paint.blank(*brush.texture_px(length, width), base)
    metal: Colour = (170, 172, 174)
    rim = 0.02 + 0.03 * rng.random()
    if rng.random() < 0.75:
        _label(flat, rng, rim, 1 - rim, base)
    ends = (metal, metal) if rng.random() < 0.5 else (paint.toned(base, rng, 0.7), paint.toned(base, rng, 0.7))
    _bands(flat, [(0, rim, ends[0]), (1 - rim, 1, ends[1])])
    paint_turned(brush, flat, [(-0.5, 1.0), (0.5, 1.0)], ends, 0.15 + 0.6 * rng.random())


def paint_tube(brush: Brush, rng: np.random.Generator) -> None:
    """A squeeze tube: a flat crimped end, and a body that narrows towards the cap."""
    length, width, _ = brush.size
    base = paint.object_colour(rng, brush.floor)
    cap = 0.13 + 0.06 * rng.random()
    flat = paint.blank(*brush.texture_px(length, width), base)
    _label(flat, rng, 0.14, 0.8 - cap, base)
    lid = paint.WHITE if rng.random() < 0.4 else paint.print_colour(rng)
    _bands(flat, [(0.03, 0.05, paint.toned(base, rng, 0.7)), (1 - cap, 1, lid)])
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
            brush.fill_px(quad, paint.lit(colour, brush.shade(normal)))


def _disc(brush: Brush, radius: float, z: float, colour: Colour, shade: float = 1.0) -> None:
    brush.fill(circle(radius, z, _SIDES), colour, shade)


def paint_can(brush: Brush, rng: np.random.Generator) -> None:
    """A standing tin with printed side, metal lid and pull tab."""
    _, width, height = brush.size
    base = paint.object_colour(rng, brush.floor)
    radius = width / 2
    _disc(brush, radius, 0.0, base, 0.6)
    _side(brush, radius, (0.0, 0.3 * height), paint.accent_colour(rng, base))
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
    base = paint.object_colour(rng, brush.floor)
    radius = width / 2
    _disc(brush, radius, 0.0, base, 0.6)
    _side(brush, radius, (0.0, height), base)
    for i in range(5):
        _disc(brush, radius * (1 - 0.07 * i), height, base, 1.05 if i % 2 else 0.92)
    _disc(brush, radius * 0.66, height, (120, 165, 200))
    _disc(brush, radius * 0.58, height, paint.toned(brush.floor, rng, 0.5))
    _disc(brush, radius * 0.54, height * 0.2, paint.toned(brush.floor, rng, 0.75))


def paint_ball(brush: Brush, rng: np.random.Generator) -> None:
    """A ball with a word or a stripe."""
    _, width, height = brush.size
    base = paint.object_colour(rng, brush.floor)
    columns, rows = brush.texture_px(width, width)
    texture = paint.blank(columns, rows, base)
    if rng.random() < 0.4:
        box = paint.part(columns, rows, 0.2, 0.38, 0.8, 0.62)
        paint.write_word(texture, box, paint.word(rng), paint.accent_colour(rng, base))
    else:
        cv2.ellipse(
            texture, (columns // 2, rows // 2), (columns // 2, rows // 5), 30, 0, 360, paint.print_colour(rng), -1
        )
    sphere_shade(brush, texture, (0.0, 0.0), width / 2, height / 2)


def sphere_shade(brush: Brush, texture: Pixels, centre: tuple[float, float], radius: float, z: float) -> None:
    """Draw a sphere with a flat texture, shaded as a sphere."""
    rows, columns = texture.shape[:2]
    x = ((np.arange(columns, dtype=np.float32) + 0.5) / columns * 2 - 1)[None, :]
    y = ((np.arange(rows, dtype=np.float32) + 0.5) / rows * 2 - 1)[:, None]
    up = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    lx, ly = brush.light_on_texture()
    shade = np.float32(0.3) + np.float32(0.8) * np.clip(0.75 * up + np.float32(lx) * x + np.float32(ly) * y, 0, 1)
    ball = paint.add_glare(
        shaded(texture, shade), paint.spot(columns, rows, 0.5 + 0.22 * lx, 0.5 + 0.22 * ly, 0.13), 0.7
    )
    cx, cy = centre
    quad = level_quad(cx - radius, cy - radius, cx + radius, cy + radius, z)
    brush.face(ball, quad, circle(radius, z, 32, centre))


def wavy_outline(rng: np.random.Generator, brush: Brush, wave: float, corner: float, z_frac: float = 0.3) -> Points:
    """A rectangle with cut corners and uneven edges, ``(N, 3)``; ``wave`` and ``corner`` are shares of the width."""
    length, width, height = brush.size
    x, y, cut = length / 2, width / 2, corner * width
    half = np.array([(-x + cut, -y), (x - cut, -y), (x, -y + cut), (x, y - cut)])
    corners = np.concatenate([half, -half])
    points = []
    for i in range(8):
        along = np.arange(6 if i % 2 == 0 else 2)[:, None] / (6 if i % 2 == 0 else 2)
        inwards = 1 - rng.uniform(0, wave * width / max(x, y), along.shape)
        points.append((corners[i] * (1 - along) + corners[(i + 1) % 8] * along) * inwards)
    flat = np.concatenate(points)
    return np.column_stack([flat, np.full(len(flat), z_frac * height)])


def sheet_quad(brush: Brush, z_frac: float = 0.5) -> Points:
    """The four corners of the object's length × width rectangle at a share of its height."""
    x, y = brush.size[0] / 2, brush.size[1] / 2
    return level_quad(-x, -y, x, y, brush.size[2] * z_frac)


def _pillow(columns: int, rows: int, edge: float) -> np.ndarray:
    """Brightness that falls towards the edges, as of something stuffed, ``(rows, columns) float32``."""
    x = np.abs(np.linspace(-1, 1, columns, dtype=np.float32))[None, :]
    y = np.abs(np.linspace(-1, 1, rows, dtype=np.float32))[:, None]
    return 1.06 - np.float32(edge) * np.maximum(x**4, y**4)


def paint_polybag(brush: Brush, rng: np.random.Generator) -> None:
    """A clear bag of one thing, a few, or many loose ones: film with folds and glare, a barcode label."""
    outline = wavy_outline(rng, brush, 0.05, 0.07)
    columns, rows = brush.texture_px(brush.size[0], brush.size[1])
    base = paint.object_colour(rng, brush.floor)
    film = paint.mixed(paint.mixed(paint.WHITE, paint.print_colour(rng), 0.15), brush.floor, 0.35)
    texture = paint.blank(columns, rows, film)
    count, size = ((1, 0.39), (5, 0.2), (24, 0.09))[int(rng.integers(3))]
    for _ in range(count):
        colour = base if count == 1 else paint.toned(paint.object_colour(rng, brush.floor), rng)
        cx, cy = (0.5, 0.5) if count == 1 else tuple(0.2 + 0.6 * rng.random(2))
        middle = (int(cx * columns), int(cy * rows))
        axes = (max(2, int(size * columns)), max(2, int(size * (0.6 + 0.4 * rng.random()) * rows)))
        turn = int(rng.integers(180))
        cv2.ellipse(texture, middle, axes, turn, 0, 360, paint.mixed(colour, film, 0.2), -1, cv2.LINE_AA)
        cv2.ellipse(texture, middle, axes, turn, 0, 360, paint.toned(colour, rng, 0.6), max(1, rows // 50), cv2.LINE_AA)
    if rng.random() < 0.8:
        paint.sticker(texture, rng, 0.36)
    shade, glare = paint.crumple(rng, columns, rows, brush.light_on_texture(), int(rng.integers(6, 11)), 0.8)
    brush.face(paint.add_glare(paint.multiply(texture, shade), glare, 0.9), sheet_quad(brush), outline)
    brush.line(outline, paint.toned(film, rng, 1.1), brush.px(0.003), closed=True)


def paint_crisp_bag(brush: Brush, rng: np.random.Generator) -> None:
    """A stuffed foil bag with two crimped ends."""
    waist = float(rng.uniform(0.86, 0.96))
    length, width, height = brush.size
    columns, rows = brush.texture_px(length, width)
    base = paint.object_colour(rng, brush.floor)
    texture = paint.design(rng, columns, rows, base)
    shade, glare = paint.crumple(rng, columns, rows, brush.light_on_texture(), int(rng.integers(4, 8)), 0.9)
    texture = paint.add_glare(paint.multiply(texture, shade * _pillow(columns, rows, 0.45)), glare)
    crimp = max(2, columns // 14)
    for column in range(0, crimp, 2):
        texture[:, [column, -1 - column]] = paint.toned(base, rng, 0.7)
    half = [(-1.0, 1.0), (-0.8, 0.97), (-0.5, waist), (0.0, waist + 0.03), (0.5, waist), (0.8, 0.97), (1.0, 1.0)]
    outline = np.array(half + [(-a, -b) for a, b in half]) * (length / 2, width / 2)
    brush.face(texture, sheet_quad(brush), np.column_stack([outline, np.full(len(outline), 0.35 * height)]))


def paint_mailer(brush: Brush, rng: np.random.Generator) -> None:
    """A padded envelope: kraft, white or grey, bubbles under the paper, a flap and a label."""
    outline = wavy_outline(rng, brush, 0.012, 0.035)
    length, width, _ = brush.size
    columns, rows = brush.texture_px(length, width)
    choices: tuple[Colour, ...] = ((96, 150, 190), (215, 218, 220), (140, 138, 135), (70, 160, 215), (60, 55, 52))
    base = paint.toned(choices[int(rng.integers(len(choices)))], rng)
    texture = paint.blank(columns, rows, base)
    pitch = max(3, columns // 16)
    for i in range(0, columns, pitch):
        for j in range((i // pitch) % 2 * pitch // 2, rows, pitch):
            cv2.circle(texture, (i, j), max(1, pitch // 3), paint.toned(base, rng, 1.06), -1)
    flap = int(0.8 * columns)
    texture[:, flap : flap + max(1, columns // 70)] = paint.toned(base, rng, 0.65)
    paint.sticker(texture, rng, 0.42)
    shade, glare = paint.crumple(rng, columns, rows, brush.light_on_texture(), 4, 0.5)
    texture = paint.add_glare(paint.multiply(texture, shade * _pillow(columns, rows, 0.25)), glare, 0.4)
    brush.face(texture, sheet_quad(brush), outline)


def paint_block(brush: Brush, top: Pixels, long: Pixels, short: Pixels) -> None:
    """Draw the faces of the object's bounding block that the camera sees, from textures of three kinds of face."""
    x, y, z = brush.size[0] / 2, brush.size[1] / 2, brush.size[2]
    lid = level_quad(-x, -y, x, y, z)
    for texture, (u, v), (a, b) in (
        (long, (0, 1), ((-x, y), (x, y))),
        (long, (0, -1), ((x, -y), (-x, -y))),
        (short, (-1, 0), ((-x, -y), (-x, y))),
        (short, (1, 0), ((x, y), (x, -y))),
    ):
        if brush.sees((u * x, v * y, z / 2), (u, v, 0.0)):
            side = np.array([(*a, z), (*b, z), (*b, 0.0), (*a, 0.0)])
            brush.face(texture, side, shade=min(1.12, brush.shade((u, v, 0.0))))
    brush.face(top, lid, shade=min(1.12, brush.shade((0.0, 0.0, 1.0))))
    edge = [int(min(255, 1.3 * float(channel) + 12)) for channel in top.reshape(-1, 3).mean(axis=0)]
    brush.line(lid, (edge[0], edge[1], edge[2]), 1, closed=True)


def _finish(rng: np.random.Generator, texture: Pixels, gloss: float) -> Pixels:
    """Uneven light over a printed face, and for glossy print a reflection."""
    rows, columns = texture.shape[:2]
    texture = paint.multiply(texture, 0.9 + 0.2 * paint.smooth_noise(rng, 8, 8, 3))
    if rng.random() < gloss:
        x, y = rng.random(2)
        texture = paint.add_glare(
            texture, paint.spot(columns, rows, x, y, 0.25 + 0.25 * rng.random()), 0.2 + 0.5 * rng.random()
        )
    return texture


def paint_box(brush: Brush, rng: np.random.Generator) -> None:
    """A printed retail box with a label on top and design on its sides."""
    length, width, height = brush.size
    base = paint.object_colour(rng, brush.floor)
    top = paint.design(rng, *brush.texture_px(length, width), base)
    if rng.random() < 0.4:
        paint.sticker(top, rng, 0.3)
    long = paint.design(rng, *brush.texture_px(length, height), base, 2)
    short = paint.blank(*brush.texture_px(width, height), base)
    paint.small_print(short, paint.part(short.shape[1], short.shape[0], 0.15, 0.25, 0.85, 0.75), paint.WHITE, rng)
    paint_block(brush, _finish(rng, top, 0.45), long, short)


def paint_carton(brush: Brush, rng: np.random.Generator) -> None:
    """A cardboard carton with tape, flaps and a shipping label."""
    length, width, height = brush.size
    base = paint.toned(paint.CARDBOARD, rng)
    top = paint.blank(*brush.texture_px(length, width), base)
    rows, columns = top.shape[:2]
    paint.rectangle(top, (0, rows // 2, columns, rows // 2 + max(1, rows // 60)), paint.toned(base, rng, 0.55))
    if rng.random() < 0.75:
        tape = max(2, rows // 12)
        colour: Colour = (150, 190, 205) if rng.random() < 0.6 else (60, 70, 90)
        paint.rectangle(top, (0, rows // 2 - tape, columns, rows // 2 + tape), colour)
    if rng.random() < 0.8:
        paint.sticker(top, rng, 0.36)
    long = paint.blank(*brush.texture_px(length, height), base)
    short = paint.blank(*brush.texture_px(width, height), base)
    paint_block(brush, _finish(rng, top, 0.1), long, short)


def paint_book(brush: Brush, rng: np.random.Generator) -> None:
    """A book: printed cover, spine on one side, page edges on the others."""
    length, width, height = brush.size
    base = paint.object_colour(rng, brush.floor)
    columns, rows = brush.texture_px(length, width)
    cover = np.ascontiguousarray(paint.design(rng, columns, rows, base))
    paint.rectangle(cover, (0, 0, columns, max(1, rows // 22)), paint.toned(base, rng, 0.7))
    pages = paint.blank(*brush.texture_px(length, height), (190, 208, 214))
    pages[::2] = (160, 180, 188)
    pages[: max(1, pages.shape[0] // 6)] = base
    short = pages[:, : max(4, round(pages.shape[1] * width / length))]
    paint_block(brush, _finish(rng, cover, 0.6), pages, short)


def paint_blister(brush: Brush, rng: np.random.Generator) -> None:
    """A printed card with a hang hole (which counts as card) and goods under a clear bubble."""
    length, width, height = brush.size
    columns, rows = brush.texture_px(length, width)
    base = paint.object_colour(rng, brush.floor)
    card = paint.design(rng, columns, rows, base)
    hole = (int(0.06 * columns), rows // 2)
    cv2.ellipse(card, hole, (max(1, rows // 30), max(2, rows // 9)), 0, 0, 360, paint.toned(brush.floor, rng, 0.4), -1)
    brush.face(card, sheet_quad(brush, 0.1), wavy_outline(rng, brush, 0.0, 0.08, 0.1))
    bubble_w, bubble_h = brush.texture_px(0.6 * length, 0.66 * width)
    bubble = paint.blank(bubble_w, bubble_h, paint.toned(base, rng, 1.15))
    goods = paint.print_colour(rng)
    middle, axes = (bubble_w // 2, bubble_h // 2), (int(0.4 * bubble_w), int(0.28 * bubble_h))
    cv2.ellipse(bubble, middle, axes, 0, 0, 360, goods, -1)
    paint.rectangle(bubble, paint.part(bubble_w, bubble_h, 0.3, 0.4, 0.7, 0.6), paint.toned(goods, rng, 0.6))
    cv2.rectangle(bubble, (0, 0), (bubble_w - 1, bubble_h - 1), (215, 218, 220), max(1, bubble_h // 18))
    bubble = paint.add_glare(bubble, paint.spot(bubble_w, bubble_h, float(rng.random()), float(rng.random()), 0.2), 0.9)
    brush.face(bubble, level_quad(-0.16 * length, -0.33 * width, 0.44 * length, 0.33 * width, height))


def paint_ball_net(brush: Brush, rng: np.random.Generator) -> None:
    """Two rows of balls in a net with a printed header card, as practice balls are sold."""
    length, width, height = brush.size
    outline = wavy_outline(rng, brush, 0.06, 0.05, 0.2)
    columns, rows = brush.texture_px(length, width)
    ball = paint.WHITE if rng.random() < 0.5 else paint.object_colour(rng, brush.floor)
    bag = paint.blank(columns, rows, paint.toned(ball, rng, 0.45))
    shade, glare = paint.crumple(rng, columns, rows, brush.light_on_texture(), 7, 0.8)
    brush.face(paint.add_glare(paint.multiply(bag, shade), glare, 0.6), sheet_quad(brush, 0.2), outline)
    card = 0.22 * length
    along = max(2, int((length - card) / (width / 2)))
    pitch_x, pitch_y = (length - card) / along, width / 2
    radius = min(pitch_x, pitch_y, height * 1.4) / 2 * 0.97
    holes = rng.random() < 0.6
    for i in range(along):
        for j in range(2):
            size = brush.px(2 * radius, 6)
            texture = paint.blank(size, size, paint.toned(ball, rng, 0.95))
            if holes:
                for a, b in ((0.5, 0.5), (0.25, 0.3), (0.75, 0.35), (0.3, 0.75), (0.72, 0.74), (0.5, 0.15)):
                    cv2.circle(
                        texture, (int(a * size), int(b * size)), max(1, size // 13), paint.toned(ball, rng, 0.4), -1
                    )
            centre = (-length / 2 + (i + 0.5) * pitch_x, -width / 2 + (j + 0.5) * pitch_y)
            sphere_shade(brush, texture, centre, radius, height / 2)
    y = 0.48 * width
    front = paint.design(
        rng, *brush.texture_px(card, 2 * y), paint.BLACK if rng.random() < 0.4 else paint.print_colour(rng), 2
    )
    brush.face(front, level_quad(length / 2 - card, -y, length / 2, y, 0.5 * height))
