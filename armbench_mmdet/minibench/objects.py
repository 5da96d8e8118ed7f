"""Kinds of objects: bottles, rolls, tins, tape and balls; bags, boxes and cards; each painted by a brush."""

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from armbench_mmdet.minibench import paint
from armbench_mmdet.minibench.camera import Points, circle, level_quad
from armbench_mmdet.minibench.paint import Brush, Colour, Field, Pixels, Size

Profile = list[tuple[float, float]]
"""Places along the axis (−0.5…0.5 of the length) with the radius there (0…1 of the largest)."""

_SIDES, _END_SIDES = 28, 20
_METAL: Colour = (170, 172, 174)
_PAPERS: tuple[Colour, ...] = ((96, 150, 190), (215, 218, 220), (140, 138, 135), (70, 160, 215), (60, 55, 52))
_HOLES = ((0.5, 0.5), (0.25, 0.3), (0.75, 0.35), (0.3, 0.75), (0.72, 0.74), (0.5, 0.15))


def _shaded(texture: Pixels, shade: Field) -> Pixels:
    """A texture times brightness factors, each ``(h, w)``."""
    return cv2.multiply(texture, cv2.merge([shade] * 3), dtype=cv2.CV_8U)


def _turned(flat: Pixels, profile: Profile, light_y: float, gloss: float) -> Pixels:
    """An unrolled texture around a lying solid of revolution, as it looks from above."""
    rows, columns = flat.shape[:2]
    x = (np.arange(columns) + 0.5) / columns - 0.5
    radii = np.interp(x, *np.array(profile).T).astype(np.float32)
    v = ((np.arange(rows, dtype=np.float32) + 0.5) / rows * 2 - 1)[:, None]
    side = np.clip(v / np.maximum(radii, 0.05), -0.999, 0.999)
    facing = (np.sqrt(1 - side * side) + side * np.float32(light_y)) * np.float32(0.8)
    shade = np.float32(0.38) + np.float32(0.72) * np.clip(facing, 0, 1)
    glint = np.clip(1 - np.abs(side - np.float32(0.45 * light_y)) * np.float32(5.5), 0, 1)
    map_x = np.tile(np.arange(columns, dtype=np.float32), (rows, 1))
    map_y = (np.arcsin(side) * np.float32(2 / math.pi) + 1) * np.float32(0.5 * (rows - 1))
    wrapped = cv2.remap(flat, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return paint.add_glare(_shaded(wrapped, shade), glint * glint * np.float32(gloss))


def paint_turned(brush: Brush, flat: Pixels, profile: Profile, ends: tuple[Colour, Colour], gloss: float) -> None:
    """Draw a lying solid of revolution, whose largest diameter is the size's width, in an unrolled texture."""
    radius, axis, x = brush.width / 2, brush.height / 2, brush.length / 2
    caps = ((*profile[0], ends[0], -1.0), (*profile[-1], ends[1], 1.0))

    def disc(place: float, share: float) -> Points:
        c, s, _ = circle(1.0, 0.0, _END_SIDES).T
        return np.column_stack([np.full(_END_SIDES, place * brush.length), share * radius * c, axis * (1 + share * s)])

    for place, share, colour, to in caps:
        brush.hull(disc(place, share), paint.lit(colour, 0.4 + 0.5 * brush.shade((to, 0.0, 0.0))))
    edge = np.array([(place * brush.length, share * radius, axis) for place, share in profile])
    texture = _turned(flat, profile, brush.light_on_texture()[1], gloss)
    outline = np.concatenate([edge, edge[::-1] * (1, -1, 1)])
    brush.face(texture, level_quad(-x, -radius, x, radius, axis), outline)
    for place, share, colour, to in caps:
        if brush.sees((to * x, 0, axis), (to, 0, 0)):
            brush.hull(disc(place, share), paint.lit(colour, 0.72))
            brush.hull(disc(place, 0.7 * share), paint.lit(colour, 0.55))


def _band(flat: Pixels, start: float, stop: float, colour: Colour) -> None:
    first = int(start * flat.shape[1])
    flat[:, first : max(first + 1, int(stop * flat.shape[1]))] = colour


def _label(flat: Pixels, rng: np.random.Generator, start: float, stop: float, base: Colour) -> None:
    label = flat[:, int(start * flat.shape[1]) : int(stop * flat.shape[1])]
    if label.shape[1] > 5:
        label[:] = base
        label[:] = paint.design(rng, label)
        if rng.random() < 0.5:
            paint.sticker(label, rng, 0.3)


def paint_bottle(brush: Brush, rng: np.random.Generator) -> None:
    """A lying bottle: body, shoulder, neck and cap, with a label around the body."""
    base = paint.object_colour(rng, brush.floor)
    neck, cap = 0.30 + 0.35 * rng.random(), 0.10 + 0.06 * rng.random()
    shoulder = 0.5 - cap - 0.06 - 0.12 * rng.random()
    if rng.random() < 0.35:
        neck, shoulder, cap = 0.8, 0.24, 0.2
    profile = [(-0.5, 0.86), (-0.475, 1.0), (shoulder, 1.0), (shoulder + 0.035, 0.93)]
    profile += [(0.5 - cap - 0.015, neck * 0.9), (0.5 - cap, neck), (0.49, neck), (0.5, neck * 0.9)]
    flat = brush.blank(base)
    lid = paint.accent_colour(rng, base)
    _band(flat, 1 - cap, 1.0, lid)
    flat[:: max(2, flat.shape[0] // 14), int((1 - cap) * flat.shape[1]) :] = paint.toned(lid, rng, 0.75)
    _label(flat, rng, 0.12, shoulder + 0.45, paint.accent_colour(rng, base) if rng.random() < 0.7 else base)
    paint_turned(brush, flat, profile, (base, lid), 0.25 + 0.6 * rng.random())


def paint_roll(brush: Brush, rng: np.random.Generator) -> None:
    """A lying can, poster tube or roll with flat ends."""
    base = paint.object_colour(rng, brush.floor)
    flat = brush.blank(base)
    rim = 0.02 + 0.03 * rng.random()
    if rng.random() < 0.75:
        _label(flat, rng, rim, 1 - rim, base)
    first, last = (_METAL, _METAL) if rng.random() < 0.5 else (paint.toned(base, rng, 0.7), paint.toned(base, rng, 0.7))
    _band(flat, 0, rim, first)
    _band(flat, 1 - rim, 1, last)
    paint_turned(brush, flat, [(-0.5, 1.0), (0.5, 1.0)], (first, last), 0.15 + 0.6 * rng.random())


def paint_tube(brush: Brush, rng: np.random.Generator) -> None:
    """A squeeze tube: a flat crimped end, and a body that narrows towards the cap."""
    base = paint.object_colour(rng, brush.floor)
    cap = 0.13 + 0.06 * rng.random()
    flat = brush.blank(base)
    _label(flat, rng, 0.14, 0.8 - cap, base)
    lid = paint.WHITE if rng.random() < 0.4 else paint.print_colour(rng)
    _band(flat, 0.03, 0.05, paint.toned(base, rng, 0.7))
    _band(flat, 1 - cap, 1, lid)
    profile = [(-0.5, 1.0), (-0.42, 0.99), (0.42 - cap, 0.72), (0.5 - cap, 0.5), (0.5, 0.46)]
    paint_turned(brush, flat, profile, (base, lid), 0.3 + 0.5 * rng.random())


def _side(brush: Brush, low: float, high: float, colour: Colour) -> None:
    """The visible side of an upright cylinder, as wide as the object, between two shares of its height."""
    lower, upper = (circle(brush.width / 2, share * brush.height, _SIDES) for share in (low, high))
    ring = circle(1.0, 0.0, _SIDES)
    for i, j in zip(range(_SIDES), [*range(1, _SIDES), 0], strict=True):
        quad = np.array([lower[i], lower[j], upper[j], upper[i]])
        px = brush.project(quad)
        (ax, ay), (bx, by) = px[2] - px[0], px[3] - px[1]
        if ax * by - ay * bx < 0:
            brush.fill(quad, paint.lit(colour, brush.shade((ring[i] + ring[j]) / 2)))


def _disc(brush: Brush, share: float, height: float, colour: Colour, shade: float = 1.0) -> None:
    """A level disc that takes up a share of the object's width, at a share of its height."""
    brush.fill(circle(brush.width / 2 * share, height * brush.height, _SIDES), paint.lit(colour, shade))


def paint_can(brush: Brush, rng: np.random.Generator) -> None:
    """A standing tin with printed side, metal lid and pull tab."""
    base = paint.object_colour(rng, brush.floor)
    _disc(brush, 1.0, 0.0, base, 0.6)
    _side(brush, 0.0, 0.3, paint.accent_colour(rng, base))
    _side(brush, 0.3, 0.96, base)
    _side(brush, 0.96, 1.0, (150, 152, 155))
    for share, shade in ((1.0, 0.75), (0.93, 1.15), (0.84, 0.8), (0.8, 1.0)):
        _disc(brush, share, 1.0, (165, 168, 170), shade)
    turn, radius = int(rng.integers(24)), brush.width / 2
    far, near = (circle(share * radius, brush.height, 24) for share in (0.55, 0.3))
    tab = np.array([far[turn - 1], far[turn], near[(turn + 3) % 24], near[turn - 4]])
    brush.line(tab, (95, 98, 100), brush.px(radius * 0.1), closed=True)


def paint_tape(brush: Brush, rng: np.random.Generator) -> None:
    """A roll of tape lying flat; the cardboard core shows the inside, and counts as part of the roll."""
    base = paint.object_colour(rng, brush.floor)
    _disc(brush, 1.0, 0.0, base, 0.6)
    _side(brush, 0.0, 1.0, base)
    for i in range(5):
        _disc(brush, 1 - 0.07 * i, 1.0, base, 1.05 if i % 2 else 0.92)
    _disc(brush, 0.66, 1.0, (120, 165, 200))
    _disc(brush, 0.58, 1.0, paint.toned(brush.floor, rng, 0.5))
    _disc(brush, 0.54, 0.2, paint.toned(brush.floor, rng, 0.75))


def paint_ball(brush: Brush, rng: np.random.Generator) -> None:
    """A ball with a word or a stripe."""
    base = paint.object_colour(rng, brush.floor)
    texture = brush.blank(base, length=brush.width)
    if rng.random() < 0.4:
        paint.write_word(texture, (0.2, 0.38, 0.8, 0.62), paint.word(rng), paint.accent_colour(rng, base))
    else:
        half, fifth = len(texture) // 2, len(texture) // 5
        cv2.ellipse(texture, (half, half), (half, fifth), 30, 0, 360, paint.print_colour(rng), -1)
    _sphere(brush, texture, (0.0, 0.0), brush.width / 2)


def _sphere(brush: Brush, texture: Pixels, centre: tuple[float, float], radius: float) -> None:
    """Draw a sphere with a flat square texture, shaded as a sphere, at half the object's height."""
    side, z, (cx, cy) = len(texture), brush.height / 2, centre
    x = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    y = x[:, None]
    up = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    lx, ly = brush.light_on_texture()
    shade = np.float32(0.3) + np.float32(0.8) * np.clip(0.75 * up + np.float32(lx) * x + np.float32(ly) * y, 0, 1)
    ball = paint.add_highlight(_shaded(texture, shade), 0.5 + 0.22 * lx, 0.5 + 0.22 * ly, 0.13, 0.7)
    quad = level_quad(cx - radius, cy - radius, cx + radius, cy + radius, z)
    brush.face(ball, quad, circle(radius, z, 32, centre))


def _wavy_outline(rng: np.random.Generator, brush: Brush, wave: float, corner: float, z_frac: float = 0.3) -> Points:
    """A rectangle with cut corners and uneven edges, ``(N, 3)``; ``wave`` and ``corner`` are shares of the width."""
    x, y, cut = brush.length / 2, brush.width / 2, corner * brush.width
    half = np.array([(-x + cut, -y), (x - cut, -y), (x, -y + cut), (x, y - cut)])
    corners = np.concatenate([half, -half])
    points = []
    for i, steps in enumerate((6, 2) * 4):
        along = np.arange(steps)[:, None] / steps
        inwards = 1 - rng.uniform(0, wave * brush.width / max(x, y), along.shape)
        points.append((corners[i] * (1 - along) + corners[(i + 1) % 8] * along) * inwards)
    flat = np.concatenate(points)
    return np.column_stack([flat, np.full(len(flat), z_frac * brush.height)])


def _sheet(brush: Brush, z_frac: float = 0.5) -> Points:
    """The four corners of the object's length × width rectangle at a share of its height."""
    x, y = brush.length / 2, brush.width / 2
    return level_quad(-x, -y, x, y, brush.height * z_frac)


def paint_polybag(brush: Brush, rng: np.random.Generator) -> None:
    """A clear bag of one thing, a few, or many loose ones: film with folds and glare, a barcode label."""
    outline = _wavy_outline(rng, brush, 0.05, 0.07)
    base = paint.object_colour(rng, brush.floor)
    film = paint.mixed(paint.mixed(paint.WHITE, paint.print_colour(rng), 0.15), brush.floor, 0.35)
    texture = brush.blank(film)
    rows, columns = texture.shape[:2]
    count, size = ((1, 0.39), (5, 0.2), (24, 0.09))[int(rng.integers(3))]
    for _ in range(count):
        colour = base if count == 1 else paint.toned(paint.object_colour(rng, brush.floor), rng)
        cx, cy = (0.5, 0.5) if count == 1 else 0.2 + 0.6 * rng.random(2)
        middle = (int(cx * columns), int(cy * rows))
        axes = (max(2, int(size * columns)), max(2, int(size * (0.6 + 0.4 * rng.random()) * rows)))
        turn = int(rng.integers(180))
        cv2.ellipse(texture, middle, axes, turn, 0, 360, paint.mixed(colour, film, 0.2), -1, cv2.LINE_AA)
        cv2.ellipse(texture, middle, axes, turn, 0, 360, paint.toned(colour, rng, 0.6), max(1, rows // 50), cv2.LINE_AA)
    if rng.random() < 0.8:
        paint.sticker(texture, rng, 0.36)
    brush.face(brush.crumpled(texture, rng, int(rng.integers(6, 11)), 0.8, 0.9), _sheet(brush), outline)
    brush.line(outline, paint.toned(film, rng, 1.1), brush.px(0.003), closed=True)


def paint_crisp_bag(brush: Brush, rng: np.random.Generator) -> None:
    """A stuffed foil bag with two crimped ends."""
    waist = float(rng.uniform(0.86, 0.96))
    base = paint.object_colour(rng, brush.floor)
    texture = paint.design(rng, brush.blank(base))
    texture = brush.crumpled(texture, rng, int(rng.integers(4, 8)), 0.9, pillow=0.45)
    for column in range(0, max(2, texture.shape[1] // 14), 2):
        texture[:, [column, -1 - column]] = paint.toned(base, rng, 0.7)
    half = [(-1.0, 1.0), (-0.8, 0.97), (-0.5, waist), (0.0, waist + 0.03), (0.5, waist), (0.8, 0.97), (1.0, 1.0)]
    outline = np.array([(x, y, 0.35) for x, y in half + [(-x, -y) for x, y in half]])
    brush.face(texture, _sheet(brush), outline * (brush.length / 2, brush.width / 2, brush.height))


def paint_mailer(brush: Brush, rng: np.random.Generator) -> None:
    """A padded envelope: kraft, white or grey, bubbles under the paper, a flap and a label."""
    outline = _wavy_outline(rng, brush, 0.012, 0.035)
    base = paint.toned(_PAPERS[int(rng.integers(len(_PAPERS)))], rng)
    texture = brush.blank(base)
    rows, columns = texture.shape[:2]
    pitch = max(3, columns // 16)
    for i in range(0, columns, pitch):
        for j in range((i // pitch) % 2 * pitch // 2, rows, pitch):
            cv2.circle(texture, (i, j), max(1, pitch // 3), paint.toned(base, rng, 1.06), -1)
    flap = int(0.8 * columns)
    texture[:, flap : flap + max(1, columns // 70)] = paint.toned(base, rng, 0.65)
    paint.sticker(texture, rng, 0.42)
    brush.face(brush.crumpled(texture, rng, 4, 0.5, 0.4, pillow=0.25), _sheet(brush), outline)


def _block(brush: Brush, top: Pixels, long: Pixels, short: Pixels) -> None:
    """Draw the faces of the object's bounding block that the camera sees, from textures of three kinds of face."""
    x, y, z = brush.length / 2, brush.width / 2, brush.height
    lid = _sheet(brush, 1.0)
    for texture, (u, v), first in ((long, (0, 1), 3), (long, (0, -1), 1), (short, (-1, 0), 0), (short, (1, 0), 2)):
        if brush.sees((u * x, v * y, z / 2), (u, v, 0.0)):
            (a, b), down = lid[[first, first - 1]], (1, 1, 0)
            brush.face(texture, np.array([a, b, b * down, a * down]), shade=min(1.12, brush.shade((u, v, 0.0))))
    brush.face(top, lid, shade=min(1.12, brush.shade((0.0, 0.0, 1.0))))
    brush.line(lid, tuple(int(min(255, 1.3 * float(channel) + 12)) for channel in top.mean(axis=(0, 1))), closed=True)


def _finish(rng: np.random.Generator, texture: Pixels, gloss: float) -> Pixels:
    """Uneven light over a printed face, and for glossy print a reflection."""
    texture = paint.multiply(texture, 0.9 + 0.2 * paint.smooth_noise(rng, 8, 8, 3))
    if rng.random() < gloss:
        x, y, radius, strength = rng.random(4).tolist()
        texture = paint.add_highlight(texture, x, y, 0.25 + 0.25 * radius, 0.2 + 0.5 * strength)
    return texture


def paint_box(brush: Brush, rng: np.random.Generator) -> None:
    """A printed retail box with a label on top and design on its sides."""
    base = paint.object_colour(rng, brush.floor)
    top = paint.design(rng, brush.blank(base))
    if rng.random() < 0.4:
        paint.sticker(top, rng, 0.3)
    long = paint.design(rng, brush.blank(base, width=brush.height), 2)
    short = brush.blank(base, brush.width, brush.height)
    paint.small_print(short, (0.15, 0.25, 0.85, 0.75), paint.WHITE, rng)
    _block(brush, _finish(rng, top, 0.45), long, short)


def paint_carton(brush: Brush, rng: np.random.Generator) -> None:
    """A cardboard carton with tape, flaps and a shipping label."""
    base = paint.toned(paint.CARDBOARD, rng)
    top = brush.blank(base)
    rows = len(top)
    top[rows // 2 : rows // 2 + max(1, rows // 60)] = paint.toned(base, rng, 0.55)
    if rng.random() < 0.75:
        tape = max(2, rows // 12)
        top[rows // 2 - tape : rows // 2 + tape] = (150, 190, 205) if rng.random() < 0.6 else (60, 70, 90)
    if rng.random() < 0.8:
        paint.sticker(top, rng, 0.36)
    long, short = (brush.blank(base, side, brush.height) for side in (brush.length, brush.width))
    _block(brush, _finish(rng, top, 0.1), long, short)


def paint_book(brush: Brush, rng: np.random.Generator) -> None:
    """A book: printed cover, spine on one side, page edges on the others."""
    base = paint.object_colour(rng, brush.floor)
    cover = paint.design(rng, brush.blank(base))
    cover[: max(1, len(cover) // 22)] = paint.toned(base, rng, 0.7)
    pages = brush.blank((190, 208, 214), width=brush.height)
    pages[::2] = (160, 180, 188)
    pages[: max(1, len(pages) // 6)] = base
    short = pages[:, : max(4, round(pages.shape[1] * brush.width / brush.length))]
    _block(brush, _finish(rng, cover, 0.6), pages, short)


def paint_blister(brush: Brush, rng: np.random.Generator) -> None:
    """A printed card with a hang hole (which counts as card) and goods under a clear bubble."""
    length, width = brush.length, brush.width
    base = paint.object_colour(rng, brush.floor)
    card = paint.design(rng, brush.blank(base))
    rows, columns = card.shape[:2]
    hole, axes = (int(0.06 * columns), rows // 2), (max(1, rows // 30), max(2, rows // 9))
    cv2.ellipse(card, hole, axes, 0, 0, 360, paint.toned(brush.floor, rng, 0.4), -1)
    brush.face(card, _sheet(brush, 0.1), _wavy_outline(rng, brush, 0.0, 0.08, 0.1))
    bubble = brush.blank(paint.toned(base, rng, 1.15), 0.6 * length, 0.66 * width)
    rows, columns = bubble.shape[:2]
    goods = paint.print_colour(rng)
    middle, axes = (columns // 2, rows // 2), (int(0.4 * columns), int(0.28 * rows))
    cv2.ellipse(bubble, middle, axes, 0, 0, 360, goods, -1)
    bubble[int(0.4 * rows) : int(0.6 * rows), int(0.3 * columns) : int(0.7 * columns)] = paint.toned(goods, rng, 0.6)
    cv2.rectangle(bubble, (0, 0), (columns - 1, rows - 1), (215, 218, 220), max(1, rows // 18))
    bubble = paint.add_highlight(bubble, rng.random(), rng.random(), 0.2, 0.9)
    brush.face(bubble, level_quad(-0.16 * length, -0.33 * width, 0.44 * length, 0.33 * width, brush.height))


def paint_ball_net(brush: Brush, rng: np.random.Generator) -> None:
    """Two rows of balls in a net with a printed header card, as practice balls are sold."""
    length, width = brush.length, brush.width
    outline = _wavy_outline(rng, brush, 0.06, 0.05, 0.2)
    ball = paint.WHITE if rng.random() < 0.5 else paint.object_colour(rng, brush.floor)
    bag = brush.blank(paint.toned(ball, rng, 0.45))
    brush.face(brush.crumpled(bag, rng, 7, 0.8, 0.6), _sheet(brush, 0.2), outline)
    card = 0.22 * length
    along = max(2, int((length - card) / (width / 2)))
    pitch_x, pitch_y = (length - card) / along, width / 2
    radius = min(pitch_x, pitch_y, brush.height * 1.4) / 2 * 0.97
    side = brush.px(2 * radius, 6)
    holes = _HOLES if rng.random() < 0.6 else ()
    for i, j in np.ndindex(along, 2):
        texture = np.full((side, side, 3), paint.toned(ball, rng, 0.95), np.uint8)
        for x, y in holes:
            cv2.circle(texture, (int(x * side), int(y * side)), max(1, side // 13), paint.toned(ball, rng, 0.4), -1)
        _sphere(brush, texture, (-length / 2 + (i + 0.5) * pitch_x, -width / 2 + (j + 0.5) * pitch_y), radius)
    y = 0.48 * width
    front = brush.blank(paint.BLACK if rng.random() < 0.4 else paint.print_colour(rng), card, 2 * y)
    brush.face(paint.design(rng, front, 2), level_quad(length / 2 - card, -y, length / 2, y, 0.5 * brush.height))


class Kind(NamedTuple):
    """A kind of object: how common it is, and ranges of its length, of width / length and of height / width."""

    paint: Callable[[Brush, np.random.Generator], None]
    weight: int
    length: tuple[float, float]
    width: tuple[float, float]
    height: tuple[float, float]

    def sample_size(self, rng: np.random.Generator, scale: float) -> Size:
        """Length, width and height in tote lengths."""
        length, width, height = (float(rng.uniform(*span)) for span in (self.length, self.width, self.height))
        return scale * length, scale * length * width, scale * length * width * height


KINDS = (
    Kind(paint_box, 16, (0.15, 0.32), (0.45, 0.85), (0.25, 0.75)),
    Kind(paint_carton, 7, (0.17, 0.34), (0.55, 0.9), (0.3, 0.7)),
    Kind(paint_book, 9, (0.19, 0.32), (0.62, 0.8), (0.08, 0.25)),
    Kind(paint_bottle, 12, (0.17, 0.32), (0.32, 0.48), (0.9, 1.0)),
    Kind(paint_roll, 9, (0.16, 0.40), (0.22, 0.45), (1.0, 1.0)),
    Kind(paint_tube, 8, (0.17, 0.30), (0.26, 0.36), (0.5, 0.8)),
    Kind(paint_can, 9, (0.09, 0.14), (1.0, 1.0), (0.7, 1.4)),
    Kind(paint_tape, 6, (0.10, 0.16), (1.0, 1.0), (0.3, 0.6)),
    Kind(paint_ball, 5, (0.09, 0.15), (1.0, 1.0), (1.0, 1.0)),
    Kind(paint_polybag, 12, (0.20, 0.36), (0.6, 0.9), (0.15, 0.35)),
    Kind(paint_crisp_bag, 10, (0.18, 0.30), (0.6, 0.8), (0.25, 0.4)),
    Kind(paint_mailer, 9, (0.20, 0.34), (0.65, 0.85), (0.08, 0.2)),
    Kind(paint_blister, 8, (0.17, 0.30), (0.5, 0.65), (0.12, 0.3)),
    Kind(paint_ball_net, 5, (0.28, 0.42), (0.55, 0.7), (0.35, 0.45)),
)
