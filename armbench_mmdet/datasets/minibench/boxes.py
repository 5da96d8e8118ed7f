"""Things with corners: cartons, printed boxes, books."""

from __future__ import annotations

import numpy as np

from armbench_mmdet.datasets.minibench import labels
from armbench_mmdet.datasets.minibench.brush import Brush, Pixels
from armbench_mmdet.datasets.minibench.camera import Points
from armbench_mmdet.datasets.minibench.difficulty import DEFAULT
from armbench_mmdet.datasets.minibench.fields import add_glare, multiply, smooth_noise, spot
from armbench_mmdet.datasets.minibench.palette import CARDBOARD, WHITE, Colour, object_colour, toned

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
    base = object_colour(rng, brush.floor, DEFAULT.min_contrast)
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
    base = object_colour(rng, brush.floor, DEFAULT.min_contrast)
    columns, rows = brush.texture_px(length, width)
    cover = np.ascontiguousarray(labels.design(rng, columns, rows, base, int(rng.integers(1, 5))))
    labels.rectangle(cover, (0, 0, columns, max(1, rows // 22)), toned(base, rng, 0.7))
    pages = labels.blank(*brush.texture_px(length, height), (190, 208, 214))
    pages[::2] = (160, 180, 188)
    pages[: max(1, pages.shape[0] // 6)] = base
    short = pages[:, : max(4, round(pages.shape[1] * width / length))]
    paint_block(brush, {'top': _finish(rng, cover, 0.6), 'long': pages, 'short': short})
