"""What is around the tote: conveyor, frame, dark hall."""

from __future__ import annotations

import cv2
import numpy as np

from armbench_mmdet.datasets.minibench.brush import Pixels
from armbench_mmdet.datasets.minibench.fields import smooth_noise
from armbench_mmdet.datasets.minibench.palette import Colour, toned

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
