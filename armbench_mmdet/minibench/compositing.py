"""From painted patches to the picture: who hides whom, shadows, and the camera's own defects."""

import cv2
import numpy as np
from numpy.typing import NDArray

from armbench_mmdet.minibench.paint import Brush, Pixels, multiply, smooth_noise

MIN_VISIBLE_FRAC, MIN_VISIBLE_AREA_FRAC = 0.35, 0.0009
"""Objects that show a smaller share of themselves, or of the image, are taken out of the scene before painting."""


def _window(brush: Brush, shape: tuple[int, ...]) -> tuple[slice, slice, slice, slice] | None:
    """Rows and columns of the canvas, then of the patch, where the two meet."""
    y0, x0 = max(0, brush.top_px), max(0, brush.left_px)
    y1 = min(shape[0], brush.top_px + brush.mask.shape[0])
    x1 = min(shape[1], brush.left_px + brush.mask.shape[1])
    if y1 <= y0 or x1 <= x0:
        return None
    top, left = brush.top_px, brush.left_px
    return slice(y0, y1), slice(x0, x1), slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)


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
    top, left = brush.top_px - pad + shift_y, brush.left_px - pad + shift_x
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(canvas.shape[0], top + dark.shape[0]), min(canvas.shape[1], left + dark.shape[1])
    if y1 <= y0 or x1 <= x0:
        return
    part = dark[y0 - top : y1 - top, x0 - left : x1 - left]
    cv2.multiply(canvas[y0:y1, x0:x1], cv2.merge([part] * 3), dst=canvas[y0:y1, x0:x1], scale=1 / 255)


def composite(canvas: Pixels, brush: Brush) -> None:
    """Put an object's patch on the canvas."""
    window = _window(brush, canvas.shape)
    if window is None:
        return
    rows, columns, patch_rows, patch_columns = window
    mask, image = brush.mask[patch_rows, patch_columns], brush.image[patch_rows, patch_columns]
    cv2.copyTo(np.ascontiguousarray(image), np.ascontiguousarray(mask), canvas[rows, columns])


def _number(brushes: list[Brush], shape: tuple[int, int], factor: int) -> tuple[NDArray[np.int32], list[int]]:
    """Id map at the picture's resolution and each brush's full area there."""
    id_map = np.zeros(shape, np.int32)
    areas = []
    for number, brush in enumerate(brushes, 1):
        first_y, first_x = -(brush.top_px // -factor), -(brush.left_px // -factor)
        mask = brush.mask[first_y * factor - brush.top_px :: factor, first_x * factor - brush.left_px :: factor] > 0
        y0, x0 = max(0, first_y), max(0, first_x)
        y1, x1 = min(shape[0], first_y + mask.shape[0]), min(shape[1], first_x + mask.shape[1])
        if y1 <= y0 or x1 <= x0:
            areas.append(0)
            continue
        inside = mask[y0 - first_y : y1 - first_y, x0 - first_x : x1 - first_x]
        id_map[y0:y1, x0:x1][inside] = number
        areas.append(int(np.count_nonzero(inside)))
    return id_map, areas


def drop_hidden(
    brushes: list[Brush], shape: tuple[int, int], factor: int
) -> tuple[list[int], NDArray[np.int32], list[int], list[int]]:
    """Take out what shows too little, the least visible first, until everything left shows enough.

    Returns:
        Indices of the brushes kept, the id map, and full and visible areas of those kept.
    """
    kept = list(range(len(brushes)))
    least_px = max(4.0, MIN_VISIBLE_AREA_FRAC * shape[0] * shape[1])
    while True:
        id_map, full = _number([brushes[i] for i in kept], shape, factor)
        visible = np.bincount(id_map.ravel(), minlength=len(kept) + 1)[1:]
        poor = [
            (int(visible[k]), k)
            for k in range(len(kept))
            if visible[k] < least_px or visible[k] < MIN_VISIBLE_FRAC * full[k]
        ]
        if not poor:
            return kept, id_map, full, [int(value) for value in visible]
        del kept[min(poor)[1]]


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
