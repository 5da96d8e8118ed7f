"""Small masks brought to the size of the image, and their run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask


def encode_bitmap(bitmap: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths of a bitmap ``(H, W)`` bool, ``counts`` as str; equal to pycocotools'."""
    counts = np.diff(bitmap_switches(np.ascontiguousarray(bitmap)), prepend=0, append=bitmap.size)
    rle = coco_mask.frPyObjects({'counts': counts, 'size': bitmap.shape}, *bitmap.shape)
    return {'size': list(bitmap.shape), 'counts': rle['counts'].decode()}


def bitmap_switches(bitmap: np.ndarray) -> np.ndarray:
    """The rising positions ``x · H + y`` at which a contiguous bitmap ``(H, W)`` bool changes between off and on."""
    height, width = bitmap.shape
    if not bitmap.size:
        return np.empty(0, np.int64)
    pixels = bitmap.view(np.uint8).reshape(-1)
    above, below = pixels[:-width], pixels[width:]
    # Most words of eight pixels are the same in both rows, and quickly passed over.
    whole = above.size // 8 * 8
    words = np.flatnonzero(above[:whole].view(np.uint64) != below[:whole].view(np.uint64))
    places = np.append((8 * words[:, None] + np.arange(8)).ravel(), np.arange(whole, above.size))
    y, x = np.divmod(places[above[places] != below[places]], width)
    # A column follows on the foot of the one to its left.
    foot = np.concatenate([[False], bitmap[-1, :-1]])
    return np.sort(np.concatenate([x * height + y + 1, np.flatnonzero(bitmap[0] != foot) * height]))


def pasted(mask: np.ndarray, box: np.ndarray, size: tuple[int, int], threshold: float) -> np.ndarray:
    """The bitmap ``(H, W) bool`` of a mask in its box, as mmdet pastes it and cuts it at a threshold.

    Args:
        mask: ``(h, w) float32``, probabilities.
        box: x1, y1, x2, y2 in px.
        size: Height and width of the image.
        threshold: A pixel is on from this value up.
    """
    bitmap = np.zeros(size, bool)
    place, axes = [], []
    x1, y1, x2, y2 = box.tolist()
    for side, cells, low, high in zip(size, mask.shape, (y1, x1), (y2, x2), strict=True):
        first, last = max(int(np.floor(low)) - 1, 0), min(int(np.ceil(high)) + 1, side)
        place.append(slice(first, max(first, last)))
        # With a border of one cell of zeros; a box without extent takes the middle of the mask, as stock does.
        step = cells / (high - low) if high > low else 0.0
        axes.append((step, (first - low) * step + 1 if step else cells / 2 + 1))
    region = bitmap[tuple(place)]
    region[:] = _sampled(np.pad(mask, 1), region.shape, *axes) >= np.float32(threshold)
    return bitmap


def upsampled(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Logits ``(h, w) float32`` interpolated to a height and width; -1 where all around is negative."""
    values = np.full(size, -1, np.float32)
    place, axes = [], []
    for side, cells, other in zip(size, logits.shape, (1, 0), strict=True):
        # A cell to spare on each side: a second step looks at neighbours.
        above = np.flatnonzero(logits.max(other) > 0)
        first, last = (above[0] - 2, above[-1] + 3) if len(above) else (0, 0)
        step = cells / side
        place.append(slice(max(int(first / step), 0), min(int(np.ceil(last / step)), side)))
        axes.append((step, place[-1].start * step))
    region = values[tuple(place)]
    region[:] = _sampled(logits, region.shape, *axes)
    return values


def whole_mask(logits: np.ndarray, size: tuple[int, int]) -> tuple[dict[str, Any], list[float], float]:
    """Run lengths of a mask cut at zero at the size of the image, its box, and the mean of its sigmoid, 0 if empty."""
    values = upsampled(logits, size)
    inside = values > 0
    rle = encode_bitmap(inside)
    x, y, width, height = coco_mask.toBbox(rle).tolist()
    sure = values[inside]
    score = (1 / (1 + np.exp(-sure))).sum(dtype=np.float64) / (sure.size + 1e-6)
    return rle, [x, y, x + width, y + height], float(score)


def _sampled(source: np.ndarray, shape: Any, *axes: tuple[float, float]) -> np.ndarray:
    """A source ``(h, w) float32`` read bilinearly: along each axis from an edge on, in steps of cells a pixel."""
    if 0 in shape:
        return np.empty(shape, np.float32)
    (down, top), (right, left) = axes
    affine = (right, 0.0, left, 0.0, down, top)
    image = Image.fromarray(np.ascontiguousarray(source, np.float32))
    return np.asarray(image.transform(shape[::-1], Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR))
