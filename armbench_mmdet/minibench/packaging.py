"""Bags, boxes and cards."""

from __future__ import annotations

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
    """A rectangle's outline with soft corners and uneven edges.

    Args:
        rng: Source of randomness.
        brush: The object's size.
        wave: Depth of the unevenness as a share of the width.
        corner: How far the corners are cut, as a share of the width.
        z_frac: Height of the edge as a share of the object's height.

    Returns:
        ``(N, 3)`` local points.
    """
    length, width, height = brush.size
    x, y, cut = length / 2, width / 2, corner * width
    corners = [(-x + cut, -y), (x - cut, -y), (x, -y + cut), (x, y - cut)]
    corners += [(x - cut, y), (-x + cut, y), (-x, y - cut), (-x, -y + cut)]
    points = []
    for i in range(8):
        (ax, ay), (bx, by) = corners[i], corners[(i + 1) % 8]
        steps = 6 if i % 2 == 0 else 2
        offsets = rng.uniform(0, wave * width, steps)
        smooth = (offsets + np.roll(offsets, 1)) / 2
        for k in range(steps):
            t = k / steps
            px, py = ax + (bx - ax) * t, ay + (by - ay) * t
            shrink = 1 - float(smooth[k]) / max(x, y)
            points.append((px * shrink, py * shrink, z_frac * height))
    return np.array(points)


def sheet_quad(brush: Brush, z_frac: float = 0.5) -> Points:
    """The four corners of the object's length × width rectangle at a share of its height."""
    x, y = brush.size[0] / 2, brush.size[1] / 2
    return level_quad(-x, -y, x, y, brush.size[2] * z_frac)


def _pillow(columns: int, rows: int, edge: float) -> np.ndarray:
    """Brightness that falls towards the edges, as of something stuffed, ``(rows, columns) float32``."""
    x = np.abs(np.linspace(-1, 1, columns, dtype=np.float32))[None, :]
    y = np.abs(np.linspace(-1, 1, rows, dtype=np.float32))[:, None]
    return 1.06 - np.float32(edge) * np.maximum(x**4, y**4)


def _contents(rng: np.random.Generator, columns: int, rows: int, floor: Colour) -> tuple[Pixels, Pixels]:
    """What is in a clear bag: a few blobs or parts, with the mask they cover."""
    base = object_colour(rng, floor)
    inside = labels.blank(columns, rows, base)
    cover = np.zeros((rows, columns), np.uint8)
    style = int(rng.integers(3))
    count = 1 if style == 0 else int(rng.integers(3, 7))
    for _ in range(count):
        colour = base if style == 0 else toned(base, rng, 0.95)
        a, b = (0.40, 0.38) if style == 0 else (0.10 + 0.16 * rng.random(), 0.12 + 0.2 * rng.random())
        cx, cy = (0.5, 0.5) if style == 0 else tuple(0.26 + 0.48 * rng.random(2))
        middle, axes = (int(cx * columns), int(cy * rows)), (max(2, int(a * columns)), max(2, int(b * rows)))
        turn = 0 if style == 0 else int(rng.integers(180))
        cv2.ellipse(inside, middle, axes, turn, 0, 360, colour, -1, cv2.LINE_AA)
        cv2.ellipse(inside, middle, axes, turn, 0, 360, toned(colour, rng, 0.6), max(1, rows // 50), cv2.LINE_AA)
        cv2.ellipse(cover, middle, axes, turn, 0, 360, 255, -1)
    return inside, cover


def paint_polybag(brush: Brush, rng: np.random.Generator) -> None:
    """A clear bag: contents, film with folds and glare, printed warning and barcode label; partly see-through."""
    outline = wavy_outline(rng, brush, 0.05, 0.07)
    length, width, _ = brush.size
    columns, rows = brush.texture_px(length, width)
    texture, cover = _contents(rng, columns, rows, brush.floor)
    film: Colour = mixed(WHITE, print_colour(rng), 0.15)
    texture = cv2.addWeighted(texture, 0.78, labels.blank(columns, rows, film), 0.22, 0)
    texture[cover == 0] = toned(mixed(film, brush.floor, 0.35), rng)
    if rng.random() < 0.8:
        labels.sticker(texture, rng, 0.36)
    box = labels.part(columns, rows, 0.08, 0.72, 0.4, 0.92)
    labels.rectangle(texture, box, WHITE) if rng.random() < 0.4 else None
    labels.small_print(texture, box, (60, 60, 60), rng)
    shade, glare = crumple(rng, columns, rows, brush.light_on_texture(), int(rng.integers(6, 11)), 0.8)
    texture = add_glare(multiply(texture, shade), glare, 0.9)
    quad = sheet_quad(brush)
    brush.face(texture, quad, outline)
    brush.line(outline, toned(film, rng, 0.95), brush.px(0.003), closed=True)
    veil = cv2.max(cv2.blur(cover, (5, 5)), np.full_like(cover, 150 + int(60 * rng.random())))
    strength = cv2.merge([cv2.max(veil, (glare * 255).astype(np.uint8))] * 3)
    helper = Brush(brush.camera, brush.light, brush.pose, brush.size, brush.floor)
    helper.face(strength, quad, outline)
    brush.see_through(cv2.max(helper.image[:, :, 0], 150 * (brush.mask > 0).astype(np.uint8)))


def paint_crisp_bag(brush: Brush, rng: np.random.Generator) -> None:
    """A stuffed foil bag with two crimped, toothed ends."""
    waist = float(rng.uniform(0.86, 0.96))
    length, width, height = brush.size
    columns, rows = brush.texture_px(length, width)
    base = object_colour(rng, brush.floor)
    texture = labels.design(rng, columns, rows, base, int(rng.integers(1, 4)))
    shade, glare = crumple(rng, columns, rows, brush.light_on_texture(), int(rng.integers(4, 8)), 0.9)
    texture = add_glare(multiply(texture, shade * _pillow(columns, rows, 0.45)), glare)
    crimp = max(2, columns // 14)
    for column in range(0, crimp, 2):
        texture[:, column] = toned(base, rng, 0.7)
        texture[:, columns - 1 - column] = toned(base, rng, 0.7)
    x, y = length / 2, width / 2
    side = [(-0.97, 1.0), (-0.8, 0.97), (-0.5, waist), (0.0, waist + 0.03), (0.5, waist), (0.8, 0.97), (0.97, 1.0)]
    teeth = 8
    right = [(x * (1.0 if k % 2 else 0.97), y * (1 - 2 * k / teeth), 0.2 * height) for k in range(1, teeth)]
    left = [(-a, -b, c) for a, b, c in right]
    outline = [(a * x, b * y, 0.35 * height) for a, b in side] + right
    outline += [(-a * x, -b * y, 0.35 * height) for a, b in side] + left
    brush.face(texture, sheet_quad(brush), np.array(outline))


def paint_pouch(brush: Brush, rng: np.random.Generator) -> None:
    """A stand-up pouch lying flat: zip line, tear notch, bottom fold, printed front."""
    outline = wavy_outline(rng, brush, 0.015, 0.09)
    length, width, _ = brush.size
    columns, rows = brush.texture_px(length, width)
    base = object_colour(rng, brush.floor)
    texture = labels.blank(columns, rows, base)
    first, last = int(0.14 * columns), int(0.86 * columns)
    texture[:, first:last] = labels.design(rng, last - first, rows, base)
    if rng.random() < 0.4:
        labels.sticker(texture, rng, 0.3)
    shade, glare = crumple(rng, columns, rows, brush.light_on_texture(), 4, 0.55)
    texture = add_glare(multiply(texture, shade * _pillow(columns, rows, 0.3)), glare, 0.7)
    for place, factor in ((0.05, 0.7), (0.09, 1.3), (0.11, 0.65), (0.89, 0.7), (0.93, 1.2)):
        column = int(place * columns)
        texture[:, column : column + max(1, columns // 90)] = toned(base, rng, factor)
    brush.face(texture, sheet_quad(brush), outline)


def paint_mailer(brush: Brush, rng: np.random.Generator) -> None:
    """A padded envelope: kraft, white or grey, bubbles under the paper, flap and shipping label."""
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
    if rng.random() < 0.6:
        labels.write_word(
            texture, labels.part(columns, rows, 0.1, 0.1, 0.6, 0.3), labels.word(rng), toned(base, rng, 0.4)
        )
    shade, glare = crumple(rng, columns, rows, brush.light_on_texture(), 4, 0.5)
    texture = add_glare(multiply(texture, shade * _pillow(columns, rows, 0.25)), glare, 0.4)
    brush.face(texture, sheet_quad(brush), outline)


def paint_cloth(brush: Brush, rng: np.random.Generator) -> None:
    """Folded cloth: weave stripes, soft deep folds, a paper band or tag."""
    outline = wavy_outline(rng, brush, 0.05, 0.10)
    length, width, _ = brush.size
    columns, rows = brush.texture_px(length, width)
    base = object_colour(rng, brush.floor)
    texture = labels.blank(columns, rows, base)
    if rng.random() < 0.6:
        pitch = max(3, rows // int(rng.integers(5, 12)))
        second = print_colour(rng)
        for i in range(0, rows, pitch):
            texture[i : i + max(1, pitch // 3)] = second
    texture = multiply(texture, 0.9 + 0.2 * smooth_noise(rng, columns, rows, 30))
    shade, _ = crumple(rng, columns, rows, brush.light_on_texture(), int(rng.integers(4, 7)), 1.1)
    texture = multiply(texture, shade * _pillow(columns, rows, 0.35))
    fold = rows // 2 + int(rng.integers(-rows // 6 - 1, rows // 6 + 1))
    texture[fold : fold + max(1, rows // 40)] = toned(base, rng, 0.45)
    if rng.random() < 0.6:
        labels.sticker(texture, rng, 0.25)
    brush.face(texture, sheet_quad(brush), outline)


Normal = tuple[float, float, float]


def block_faces(length: float, width: float, height: float) -> list[tuple[str, Normal, Points]]:
    """Names, outward normals and ``(4, 3)`` corners of a block's five visible faces, textures upright."""
    x, y, z = length / 2, width / 2, height
    sides: list[tuple[str, Normal, list[tuple[float, float, float]]]] = [
        ('front', (0, 1, 0), [(-x, y, z), (x, y, z), (x, y, 0), (-x, y, 0)]),
        ('back', (0, -1, 0), [(x, -y, z), (-x, -y, z), (-x, -y, 0), (x, -y, 0)]),
        ('left', (-1, 0, 0), [(-x, -y, z), (-x, y, z), (-x, y, 0), (-x, -y, 0)]),
        ('right', (1, 0, 0), [(x, y, z), (x, -y, z), (x, -y, 0), (x, y, 0)]),
        ('top', (0, 0, 1), [(-x, -y, z), (x, -y, z), (x, y, z), (-x, y, z)]),
    ]
    return [(name, normal, np.array(corners)) for name, normal, corners in sides]


def paint_block(brush: Brush, textures: dict[str, Pixels]) -> None:
    """Draw the faces of the object's bounding block that the camera sees.

    Args:
        brush: Where to.
        textures: ``(h, w, 3) uint8`` for ``top``, ``long`` (front and back) and ``short`` (left and right).
    """
    for name, normal, corners in block_faces(*brush.size):
        middle = corners.mean(axis=0)
        if not brush.sees((float(middle[0]), float(middle[1]), float(middle[2])), normal):
            continue
        key = {'front': 'long', 'back': 'long', 'left': 'short', 'right': 'short'}.get(name, name)
        brush.face(textures[key], corners, shade=min(1.12, brush.shade(normal)))
    length, width, height = brush.size
    top = block_faces(length, width, height)[-1][2]
    b, g, r = (float(channel) for channel in textures['top'].reshape(-1, 3).mean(axis=0))
    brush.line(
        top, (int(min(255, 1.3 * b + 12)), int(min(255, 1.3 * g + 12)), int(min(255, 1.3 * r + 12))), 1, closed=True
    )


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
    long = labels.design(rng, *brush.texture_px(length, height), base, 4 if rng.random() < 0.5 else 5)
    short = labels.blank(*brush.texture_px(width, height), base)
    labels.small_print(short, labels.part(short.shape[1], short.shape[0], 0.15, 0.25, 0.85, 0.75), WHITE, rng)
    paint_block(brush, {'top': _finish(rng, top, 0.45), 'long': long, 'short': short})


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
    if rng.random() < 0.6:
        box = labels.part(columns, rows, 0.08, 0.62, 0.5, 0.9)
        labels.write_word(top, box, labels.word(rng), (40, 50, 70))
    long = labels.blank(*brush.texture_px(length, height), base)
    labels.small_print(long, labels.part(long.shape[1], long.shape[0], 0.1, 0.3, 0.4, 0.8), (50, 60, 80), rng)
    short = labels.blank(*brush.texture_px(width, height), base)
    paint_block(brush, {'top': _finish(rng, top, 0.1), 'long': long, 'short': short})


def paint_book(brush: Brush, rng: np.random.Generator) -> None:
    """A book: printed cover, spine on one side, page edges on the others."""
    length, width, height = brush.size
    base = object_colour(rng, brush.floor)
    columns, rows = brush.texture_px(length, width)
    cover = np.ascontiguousarray(labels.design(rng, columns, rows, base, int(rng.integers(1, 5))))
    labels.rectangle(cover, (0, 0, columns, max(1, rows // 22)), toned(base, rng, 0.7))
    pages = labels.blank(*brush.texture_px(length, height), (190, 208, 214))
    pages[::2] = (160, 180, 188)
    pages[: max(1, pages.shape[0] // 6)] = base
    short = pages[:, : max(4, round(pages.shape[1] * width / length))]
    paint_block(brush, {'top': _finish(rng, cover, 0.6), 'long': pages, 'short': short})


def paint_blister(brush: Brush, rng: np.random.Generator) -> None:
    """A printed card with a hang hole (which counts as card) and goods under a clear bubble."""
    length, width, height = brush.size
    columns, rows = brush.texture_px(length, width)
    base = object_colour(rng, brush.floor)
    card = labels.design(rng, columns, rows, base)
    hole = (int(0.06 * columns), rows // 2)
    cv2.ellipse(card, hole, (max(1, rows // 30), max(2, rows // 9)), 0, 0, 360, toned(brush.floor, rng, 0.4), -1)
    x, y = length / 2, width / 2
    cut = 0.08 * width
    outline = [(-x + cut, -y), (x - cut, -y), (x, -y + cut), (x, y - cut), (x - cut, y), (-x + cut, y)]
    outline += [(-x, y - cut), (-x, -y + cut)]
    brush.face(card, sheet_quad(brush, 0.1), np.array([(a, b, 0.1 * height) for a, b in outline]))
    bubble_w, bubble_h = brush.texture_px(0.6 * length, 0.66 * width)
    bubble = labels.blank(bubble_w, bubble_h, toned(base, rng, 1.15))
    goods = print_colour(rng)
    cv2.ellipse(
        bubble, (bubble_w // 2, bubble_h // 2), (int(0.4 * bubble_w), int(0.28 * bubble_h)), 0, 0, 360, goods, -1
    )
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
    across = 2
    along = max(2, int((length - card) / (width / across)))
    pitch_x, pitch_y = (length - card) / along, width / across
    radius = min(pitch_x, pitch_y, height * 1.4) / 2 * 0.97
    holes = rng.random() < 0.6
    for i in range(along):
        for j in range(across):
            size = brush.px(2 * radius, 6)
            texture = labels.blank(size, size, toned(ball, rng, 0.95))
            if holes:
                for a, b in ((0.5, 0.5), (0.25, 0.3), (0.75, 0.35), (0.3, 0.75), (0.72, 0.74), (0.5, 0.15)):
                    cv2.circle(texture, (int(a * size), int(b * size)), max(1, size // 13), toned(ball, rng, 0.4), -1)
            step = max(3, size // 8)
            for line in range(0, 2 * size, step):
                cv2.line(texture, (line, 0), (line - size, size), toned(ball, rng, 0.72), 1, cv2.LINE_AA)
                cv2.line(texture, (size - line, 0), (2 * size - line, size), toned(ball, rng, 0.72), 1, cv2.LINE_AA)
            centre = (-length / 2 + (i + 0.5) * pitch_x, -width / 2 + (j + 0.5) * pitch_y)
            sphere_shade(brush, texture, centre, radius, height / 2)
    y = 0.48 * width
    front = labels.design(rng, *brush.texture_px(card, 2 * y), BLACK if rng.random() < 0.4 else print_colour(rng), 4)
    brush.face(front, level_quad(length / 2 - card, -y, length / 2, y, 0.5 * height))
