"""From painted patches to the picture: who hides whom, shadows, and the camera's own defects."""

import cv2
import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.minibench.paint import Brush, Pixels, multiply, smooth_noise

MIN_VISIBLE_FRAC, MIN_VISIBLE_AREA_FRAC = 0.35, 0.0009
"""Objects that show a smaller share of themselves, or of the image, are taken out of the scene before painting."""


def _meeting(top_px: int, left_px: int, patch: Pixels, canvas: Pixels) -> tuple[Pixels, Pixels]:
    """Of a canvas and a patch on it the parts where they meet, as views; empty where they do not."""
    places = zip((top_px, left_px), patch.shape, canvas.shape, strict=False)
    spans = [(start, max(0, start), max(0, start, min(side, start + length))) for start, length, side in places]
    on_canvas = tuple(slice(first, last) for _, first, last in spans)
    return canvas[on_canvas], patch[tuple(slice(first - start, last - start) for start, first, last in spans)]


def cast_shadow(canvas: Pixels, brush: Brush) -> None:
    """Darken what lies around and under an object, soft, away from the light."""
    factor = 4
    pad = brush.px(0.05, 4)
    light, height = brush.light, brush.size[2]
    shift_x, shift_y = (round(-value * height * 0.7 * brush.scale_px) for value in (light.x, light.y))
    rows, columns = brush.mask.shape
    small = (max(1, (columns + 2 * pad) // factor), max(1, (rows + 2 * pad) // factor))
    padded = cv2.copyMakeBorder(brush.mask, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    reach = max(1, brush.px(0.012) // factor) * 2 + 1
    soft = cv2.GaussianBlur(cv2.resize(padded, small, interpolation=cv2.INTER_AREA), (0, 0), reach / 2)
    dark = cv2.resize(255 - cv2.convertScaleAbs(soft, alpha=0.55), padded.shape[::-1])
    ground, dark = _meeting(brush.top_px - pad + shift_y, brush.left_px - pad + shift_x, dark, canvas)
    if dark.size:
        cv2.multiply(ground, cv2.merge([dark] * 3), dst=ground, scale=1 / 255)


def composite(canvas: Pixels, brush: Brush) -> None:
    """Put an object's patch on the canvas."""
    part, image = _meeting(brush.top_px, brush.left_px, brush.image, canvas)
    _, mask = _meeting(brush.top_px, brush.left_px, brush.mask, canvas)
    np.copyto(part, image, where=mask[..., None] > 0)


def _number(brushes: list[Brush], shape: tuple[int, int], factor: int) -> tuple[NDArray[np.int32], NDArray[np.int_]]:
    """Id map at the picture's resolution and each brush's full area there."""
    id_map, areas = np.zeros(shape, np.int32), []
    for number, brush in enumerate(brushes, 1):
        top, left = -(brush.top_px // -factor), -(brush.left_px // -factor)
        mask = brush.mask[top * factor - brush.top_px :: factor, left * factor - brush.left_px :: factor]
        part, mask = _meeting(top, left, mask, id_map)
        part[mask > 0] = number
        areas.append(int(np.count_nonzero(mask)))
    return id_map, np.array(areas, int)


def drop_hidden(
    brushes: list[Brush], shape: tuple[int, int], factor: int
) -> tuple[list[int], NDArray[np.int32], list[float]]:
    """Take out what shows too little, the least visible first, until everything left shows enough.

    Returns:
        Indices of the brushes kept, the id map, and the visible share of each.
    """
    kept = list(range(len(brushes)))
    least_px = max(4.0, MIN_VISIBLE_AREA_FRAC * shape[0] * shape[1])
    while True:
        id_map, full = _number([brushes[i] for i in kept], shape, factor)
        visible = np.bincount(id_map.ravel(), minlength=len(kept) + 1)[1:]
        poor = np.flatnonzero((visible < least_px) | (visible < MIN_VISIBLE_FRAC * full))
        if not len(poor):
            return kept, id_map, (visible / full).tolist()
        del kept[poor[visible[poor].argmin()]]


def expose(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Uneven light, lens blur and sensor noise."""
    rows, columns = image.shape[:2]
    small_y, small_x = 24, 32
    x = np.linspace(-1, 1, small_x, dtype=np.float32)[None, :] - np.float32(rng.uniform(-0.4, 0.4))
    y = np.linspace(-1, 1, small_y, dtype=np.float32)[:, None] - np.float32(rng.uniform(-0.4, 0.4))
    field = np.float32(rng.uniform(1.0, 1.2)) - np.float32(rng.uniform(0.1, 0.28)) * (x * x + y * y) / 2
    field *= 0.95 + 0.1 * smooth_noise(rng, small_x, small_y, 5)
    image = multiply(image, field)
    sigma = float(rng.uniform(0.0, 0.45)) * rows / 256
    if sigma > 0.15:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    noise = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(rng.uniform(1.5, 4.0))
    grain = np.clip(noise + np.float32(128), 0, 255).astype(np.uint8)
    return cv2.addWeighted(image, 1.0, cv2.merge([grain] * 3), 1.0, -128)
