"""Small masks brought to the size of the image, and their run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask


def pasted(cells: np.ndarray, box: Any, size: tuple[int, int], level: float) -> tuple[dict[str, Any], np.ndarray]:
    """Where the cells of a small mask, laid over a box and read bilinearly, reach a level, and the values there.

    Args:
        cells: ``(h, w) float32``.
        box: x1, y1, x2, y2 in px.
        size: Height and width of the image.
        level: A pixel is on from this value up.

    Returns:
        COCO's compressed run lengths, ``counts`` as str, and ``(K,) float32``.
    """
    place, axes = [], []
    x1, y1, x2, y2 = map(float, box)
    for side, count, low, high, other in zip(size, cells.shape, (y1, x1), (y2, x2), (1, 0), strict=True):
        reached = np.flatnonzero(cells.max(other) >= level)
        first, last = (reached[0] - 1, reached[-1] + 2) if len(reached) else (0, 0)
        # As in mmdet, a box without extent takes the middle of the mask.
        step = count / (high - low) if high > low else 0.0
        ends = (low + first / step, low + last / step) if step else (low - 1, low + 1)
        start, stop = np.clip([np.floor(ends[0]), np.ceil(ends[1])], 0, side).astype(int).tolist()
        place.append((start, stop))
        axes.append((step, (start - low) * step if step else count / 2))
    ((upper, lower), (left, right)), ((down, top), (across, before)) = place, axes
    affine = (across, 0.0, before, 0.0, down, top)
    image = Image.fromarray(np.ascontiguousarray(cells, np.float32))
    region = image.transform((right - left, lower - upper), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    values = np.asarray(region).reshape(lower - upper, right - left)
    is_on = values >= np.float32(level)
    # Run lengths go down the columns; unless these are whole, a row that is off parts them.
    height = min(lower - upper + 1, size[0])
    columns = np.zeros((right - left, height), bool)
    columns[:, : lower - upper] = is_on.T
    switches = np.flatnonzero(np.diff(columns.ravel(), prepend=False, append=False))
    switches = (left + switches // height) * size[0] + upper + switches % height
    counts = np.trim_zeros(np.diff(switches, prepend=0, append=size[0] * size[1]), 'b')
    rle = coco_mask.frPyObjects({'counts': counts, 'size': size}, *size)
    return {'size': list(size), 'counts': rle['counts'].decode()}, values[is_on]
