"""Blister cards and balls in a net with a header card."""

from __future__ import annotations

import cv2
import numpy as np

from armbench_mmdet.datasets.minibench import labels
from armbench_mmdet.datasets.minibench.bags import sheet_quad, wavy_outline
from armbench_mmdet.datasets.minibench.brush import Brush
from armbench_mmdet.datasets.minibench.difficulty import DEFAULT
from armbench_mmdet.datasets.minibench.fields import add_glare, crumple, multiply, spot
from armbench_mmdet.datasets.minibench.palette import BLACK, WHITE, object_colour, print_colour, toned
from armbench_mmdet.datasets.minibench.standing import sphere_shade


def paint_blister(brush: Brush, rng: np.random.Generator) -> None:
    """A printed card with a hang hole (which counts as card) and goods under a clear bubble."""
    length, width, height = brush.size
    columns, rows = brush.texture_px(length, width)
    base = object_colour(rng, brush.floor, DEFAULT.min_contrast)
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
    low_x, high_x, half, z = -0.16 * length, 0.44 * length, 0.33 * width, height
    quad = np.array([(low_x, -half, z), (high_x, -half, z), (high_x, half, z), (low_x, half, z)])
    brush.face(bubble, quad)


def paint_ball_net(brush: Brush, rng: np.random.Generator) -> None:
    """Two rows of balls in a net with a printed header card, as practice balls are sold."""
    length, width, height = brush.size
    outline = wavy_outline(rng, brush, 0.06, 0.05, 0.2)
    columns, rows = brush.texture_px(length, width)
    ball = WHITE if rng.random() < 0.5 else object_colour(rng, brush.floor, DEFAULT.min_contrast)
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
    x0, x1, y, z = length / 2 - card, length / 2, 0.48 * width, 0.5 * height
    front = labels.design(rng, *brush.texture_px(card, 2 * y), BLACK if rng.random() < 0.4 else print_colour(rng), 4)
    brush.face(front, np.array([(x0, -y, z), (x1, -y, z), (x1, y, z), (x0, y, z)]))
