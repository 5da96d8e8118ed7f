"""Bags, boxes and cards."""

import cv2
import numpy as np

from armbench_mmdet.minibench import labels
from armbench_mmdet.minibench.camera import Points, level_quad
from armbench_mmdet.minibench.paint import (
    BLACK,
    CARDBOARD,
    WHITE,
    Brush,
    Colour,
    Pixels,
    add_glare,
    crumple,
    mixed,
    multiply,
    object_colour,
    print_colour,
    smooth_noise,
    spot,
    toned,
)
from armbench_mmdet.minibench.solids import sphere_shade


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
    base, film = object_colour(rng, brush.floor), mixed(mixed(WHITE, print_colour(rng), 0.15), brush.floor, 0.35)
    texture = labels.blank(columns, rows, film)
    count, size = ((1, 0.39), (5, 0.2), (24, 0.09))[int(rng.integers(3))]
    for _ in range(count):
        colour = base if count == 1 else toned(object_colour(rng, brush.floor), rng)
        cx, cy = (0.5, 0.5) if count == 1 else tuple(0.2 + 0.6 * rng.random(2))
        middle = (int(cx * columns), int(cy * rows))
        axes = (max(2, int(size * columns)), max(2, int(size * (0.6 + 0.4 * rng.random()) * rows)))
        turn = int(rng.integers(180))
        cv2.ellipse(texture, middle, axes, turn, 0, 360, mixed(colour, film, 0.2), -1, cv2.LINE_AA)
        cv2.ellipse(texture, middle, axes, turn, 0, 360, toned(colour, rng, 0.6), max(1, rows // 50), cv2.LINE_AA)
    if rng.random() < 0.8:
        labels.sticker(texture, rng, 0.36)
    shade, glare = crumple(rng, columns, rows, brush.light_on_texture(), int(rng.integers(6, 11)), 0.8)
    brush.face(add_glare(multiply(texture, shade), glare, 0.9), sheet_quad(brush), outline)
    brush.line(outline, toned(film, rng, 1.1), brush.px(0.003), closed=True)


def paint_crisp_bag(brush: Brush, rng: np.random.Generator) -> None:
    """A stuffed foil bag with two crimped ends."""
    waist = float(rng.uniform(0.86, 0.96))
    length, width, height = brush.size
    columns, rows = brush.texture_px(length, width)
    base = object_colour(rng, brush.floor)
    texture = labels.design(rng, columns, rows, base)
    shade, glare = crumple(rng, columns, rows, brush.light_on_texture(), int(rng.integers(4, 8)), 0.9)
    texture = add_glare(multiply(texture, shade * _pillow(columns, rows, 0.45)), glare)
    crimp = max(2, columns // 14)
    for column in range(0, crimp, 2):
        texture[:, [column, -1 - column]] = toned(base, rng, 0.7)
    half = [(-1.0, 1.0), (-0.8, 0.97), (-0.5, waist), (0.0, waist + 0.03), (0.5, waist), (0.8, 0.97), (1.0, 1.0)]
    outline = np.array(half + [(-a, -b) for a, b in half]) * (length / 2, width / 2)
    brush.face(texture, sheet_quad(brush), np.column_stack([outline, np.full(len(outline), 0.35 * height)]))


def paint_mailer(brush: Brush, rng: np.random.Generator) -> None:
    """A padded envelope: kraft, white or grey, bubbles under the paper, a flap and a label."""
    outline = wavy_outline(rng, brush, 0.012, 0.035)
    length, width, _ = brush.size
    columns, rows = brush.texture_px(length, width)
    choices: tuple[Colour, ...] = ((96, 150, 190), (215, 218, 220), (140, 138, 135), (70, 160, 215), (60, 55, 52))
    base = toned(choices[int(rng.integers(len(choices)))], rng)
    texture = labels.blank(columns, rows, base)
    pitch = max(3, columns // 16)
    for i in range(0, columns, pitch):
        for j in range((i // pitch) % 2 * pitch // 2, rows, pitch):
            cv2.circle(texture, (i, j), max(1, pitch // 3), toned(base, rng, 1.06), -1)
    flap = int(0.8 * columns)
    texture[:, flap : flap + max(1, columns // 70)] = toned(base, rng, 0.65)
    labels.sticker(texture, rng, 0.42)
    shade, glare = crumple(rng, columns, rows, brush.light_on_texture(), 4, 0.5)
    texture = add_glare(multiply(texture, shade * _pillow(columns, rows, 0.25)), glare, 0.4)
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
    texture = multiply(texture, 0.9 + 0.2 * smooth_noise(rng, 8, 8, 3))
    if rng.random() < gloss:
        x, y = rng.random(2)
        texture = add_glare(texture, spot(columns, rows, x, y, 0.25 + 0.25 * rng.random()), 0.2 + 0.5 * rng.random())
    return texture


def paint_box(brush: Brush, rng: np.random.Generator) -> None:
    """A printed retail box with a label on top and design on its sides."""
    length, width, height = brush.size
    base = object_colour(rng, brush.floor)
    top = labels.design(rng, *brush.texture_px(length, width), base)
    if rng.random() < 0.4:
        labels.sticker(top, rng, 0.3)
    long = labels.design(rng, *brush.texture_px(length, height), base, 2)
    short = labels.blank(*brush.texture_px(width, height), base)
    labels.small_print(short, labels.part(short.shape[1], short.shape[0], 0.15, 0.25, 0.85, 0.75), WHITE, rng)
    paint_block(brush, _finish(rng, top, 0.45), long, short)


def paint_carton(brush: Brush, rng: np.random.Generator) -> None:
    """A cardboard carton with tape, flaps and a shipping label."""
    length, width, height = brush.size
    base = toned(CARDBOARD, rng)
    top = labels.blank(*brush.texture_px(length, width), base)
    rows, columns = top.shape[:2]
    labels.rectangle(top, (0, rows // 2, columns, rows // 2 + max(1, rows // 60)), toned(base, rng, 0.55))
    if rng.random() < 0.75:
        tape = max(2, rows // 12)
        colour: Colour = (150, 190, 205) if rng.random() < 0.6 else (60, 70, 90)
        labels.rectangle(top, (0, rows // 2 - tape, columns, rows // 2 + tape), colour)
    if rng.random() < 0.8:
        labels.sticker(top, rng, 0.36)
    long = labels.blank(*brush.texture_px(length, height), base)
    short = labels.blank(*brush.texture_px(width, height), base)
    paint_block(brush, _finish(rng, top, 0.1), long, short)


def paint_book(brush: Brush, rng: np.random.Generator) -> None:
    """A book: printed cover, spine on one side, page edges on the others."""
    length, width, height = brush.size
    base = object_colour(rng, brush.floor)
    columns, rows = brush.texture_px(length, width)
    cover = np.ascontiguousarray(labels.design(rng, columns, rows, base))
    labels.rectangle(cover, (0, 0, columns, max(1, rows // 22)), toned(base, rng, 0.7))
    pages = labels.blank(*brush.texture_px(length, height), (190, 208, 214))
    pages[::2] = (160, 180, 188)
    pages[: max(1, pages.shape[0] // 6)] = base
    short = pages[:, : max(4, round(pages.shape[1] * width / length))]
    paint_block(brush, _finish(rng, cover, 0.6), pages, short)


def paint_blister(brush: Brush, rng: np.random.Generator) -> None:
    """A printed card with a hang hole (which counts as card) and goods under a clear bubble."""
    length, width, height = brush.size
    columns, rows = brush.texture_px(length, width)
    base = object_colour(rng, brush.floor)
    card = labels.design(rng, columns, rows, base)
    hole = (int(0.06 * columns), rows // 2)
    cv2.ellipse(card, hole, (max(1, rows // 30), max(2, rows // 9)), 0, 0, 360, toned(brush.floor, rng, 0.4), -1)
    brush.face(card, sheet_quad(brush, 0.1), wavy_outline(rng, brush, 0.0, 0.08, 0.1))
    bubble_w, bubble_h = brush.texture_px(0.6 * length, 0.66 * width)
    bubble = labels.blank(bubble_w, bubble_h, toned(base, rng, 1.15))
    goods = print_colour(rng)
    middle, axes = (bubble_w // 2, bubble_h // 2), (int(0.4 * bubble_w), int(0.28 * bubble_h))
    cv2.ellipse(bubble, middle, axes, 0, 0, 360, goods, -1)
    labels.rectangle(bubble, labels.part(bubble_w, bubble_h, 0.3, 0.4, 0.7, 0.6), toned(goods, rng, 0.6))
    cv2.rectangle(bubble, (0, 0), (bubble_w - 1, bubble_h - 1), (215, 218, 220), max(1, bubble_h // 18))
    bubble = add_glare(bubble, spot(bubble_w, bubble_h, float(rng.random()), float(rng.random()), 0.2), 0.9)
    brush.face(bubble, level_quad(-0.16 * length, -0.33 * width, 0.44 * length, 0.33 * width, height))


def paint_ball_net(brush: Brush, rng: np.random.Generator) -> None:
    """Two rows of balls in a net with a printed header card, as practice balls are sold."""
    length, width, height = brush.size
    outline = wavy_outline(rng, brush, 0.06, 0.05, 0.2)
    columns, rows = brush.texture_px(length, width)
    ball = WHITE if rng.random() < 0.5 else object_colour(rng, brush.floor)
    bag = labels.blank(columns, rows, toned(ball, rng, 0.45))
    shade, glare = crumple(rng, columns, rows, brush.light_on_texture(), 7, 0.8)
    brush.face(add_glare(multiply(bag, shade), glare, 0.6), sheet_quad(brush, 0.2), outline)
    card = 0.22 * length
    along = max(2, int((length - card) / (width / 2)))
    pitch_x, pitch_y = (length - card) / along, width / 2
    radius = min(pitch_x, pitch_y, height * 1.4) / 2 * 0.97
    holes = rng.random() < 0.6
    for i in range(along):
        for j in range(2):
            size = brush.px(2 * radius, 6)
            texture = labels.blank(size, size, toned(ball, rng, 0.95))
            if holes:
                for a, b in ((0.5, 0.5), (0.25, 0.3), (0.75, 0.35), (0.3, 0.75), (0.72, 0.74), (0.5, 0.15)):
                    cv2.circle(texture, (int(a * size), int(b * size)), max(1, size // 13), toned(ball, rng, 0.4), -1)
            centre = (-length / 2 + (i + 0.5) * pitch_x, -width / 2 + (j + 0.5) * pitch_y)
            sphere_shade(brush, texture, centre, radius, height / 2)
    y = 0.48 * width
    front = labels.design(rng, *brush.texture_px(card, 2 * y), BLACK if rng.random() < 0.4 else print_colour(rng), 2)
    brush.face(front, level_quad(length / 2 - card, -y, length / 2, y, 0.5 * height))
