"""Random fields: drawn coarse, enlarged smoothly, eight bits; they colour pixels and never make masks."""

from __future__ import annotations

import cv2
import numpy as np
from cv2.typing import MatLike

from armbench_mmdet.datasets.minibench.brush import Pixels

Field = MatLike
"""``(h, w) float32`` brightness factors, or glare in 0…1."""


def smooth_noise(rng: np.random.Generator, width_px: int, height_px: int, cells: int) -> Field:
    """``(height, width) float32`` noise in about 0…1 with about ``cells`` bumps along the longer side."""
    longer = max(width_px, height_px)
    shape = (max(2, round(cells * height_px / longer)) + 1, max(2, round(cells * width_px / longer)) + 1)
    return cv2.resize(rng.random(shape, dtype=np.float32), (width_px, height_px), interpolation=cv2.INTER_CUBIC)


def multiply(image: Pixels, field: Field) -> Pixels:
    """An image times a ``(h, w) float32`` field of brightness factors, enlarged to the image's size."""
    rows, columns = image.shape[:2]
    coded = np.clip(field * 128, 0, 255).astype(np.uint8)
    full = cv2.resize(coded, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(image, cv2.merge([full, full, full]), scale=1 / 128)


def crumple(
    rng: np.random.Generator, width_px: int, height_px: int, light: tuple[float, float], cells: int, depth: float
) -> tuple[Field, Field]:
    """Folds of film or cloth.

    Args:
        rng: Source of randomness.
        width_px: Width of the face.
        height_px: Height of the face.
        light: Light direction along the face's two axes.
        cells: Number of folds along the longer side.
        depth: Strength of the shading, about 1.

    Returns:
        Brightness factors around 1 and glare in 0…1, both ``(height, width) float32``.
    """
    w, h = max(6, width_px // 2), max(6, height_px // 2)
    bumps = smooth_noise(rng, w, h, cells)
    ridges = 1 - np.abs(2 * smooth_noise(rng, w, h, 2 * cells) - 1)
    sheet = (bumps + 0.35 * ridges) * (max(w, h) / cells)
    gx = cv2.Sobel(sheet, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    gy = cv2.Sobel(sheet, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    slope = -(gx * np.float32(light[0]) + gy * np.float32(light[1]))
    shade = np.clip(1 + np.float32(0.55 * depth) * slope, 0.35, 1.7)
    glare = np.clip((slope - np.float32(0.45)) * np.float32(1.6 * depth), 0, 1)
    size = (width_px, height_px)
    return cv2.resize(shade, size), cv2.resize(glare, size)


def add_glare(image: Pixels, glare: Field, strength: float = 1.0) -> Pixels:
    """Brighten towards white where glare is, ``(h, w) float32`` in 0…1."""
    coded = np.clip(glare * (255 * strength), 0, 255).astype(np.uint8)
    return cv2.add(image, cv2.merge([coded, coded, coded]))


def spot(width_px: int, height_px: int, x_frac: float, y_frac: float, radius_frac: float) -> Field:
    """A soft round highlight, ``(height, width) float32`` in 0…1; fractions of the width and height."""
    x = (np.arange(width_px, dtype=np.float32) / width_px - np.float32(x_frac)) / np.float32(radius_frac)
    y = (np.arange(height_px, dtype=np.float32) / height_px - np.float32(y_frac)) / np.float32(radius_frac)
    fall_x, fall_y = 1 / (1 + x * x) ** 2, 1 / (1 + y * y) ** 2
    return fall_y[:, None] * fall_x[None, :]
