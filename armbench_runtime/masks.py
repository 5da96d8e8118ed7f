"""Run lengths of masks, and small masks brought to the size of the image, in NumPy alone."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np


def encode_bitmap(bitmap: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths of a bitmap ``(H, W)`` bool, ``counts`` as str; equal to pycocotools'."""
    counts = np.diff(bitmap_switches(np.ascontiguousarray(bitmap)), prepend=0, append=bitmap.size)
    return {'size': list(bitmap.shape), 'counts': compressed(counts)}


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


def compressed(counts: np.ndarray) -> str:
    """COCO's string of run lengths ``(R,) int64``: ``rleToString`` in pycocotools' ``maskApi.c``.

    From the fourth on, differences to the count before the last one; five bits a character, least significant first,
    from character code 48; bit 6 means more follow, the last bit of the last one is the sign.
    """
    rest = counts.copy()
    rest[3:] -= counts[1:-2]
    rows, open_ones = [], np.ones(len(rest), bool)
    while open_ones.any():
        bits = rest & 0x1F
        rest = rest >> 5
        follows = rest != np.where(bits & 0x10, -1, 0)
        rows.append(np.where(open_ones, bits + 0x20 * follows + 48, 0))
        open_ones = open_ones & follows
    codes = np.array(rows, np.uint8).T.reshape(-1)
    return codes[codes > 0].tobytes().decode()


@dataclass(frozen=True)
class BilinearAxis:
    """Which two source cells each pixel of one upsampled axis is made of.

    Attributes:
        low: ``(pixels,) int64``, the first of the two, counted from the start of ``cells``; the second is the next
            one, if there is one.
        weights: ``(pixels, 2) float32``.
        cells: The source cells in use.
        first: The axis's pixel that comes first here.
    """

    low: np.ndarray
    weights: np.ndarray
    cells: slice
    first: int = 0

    @property
    def pixels(self) -> slice:
        """The pixels that are here."""
        return slice(self.first, self.first + len(self.low))

    def made_of(self, wanted: np.ndarray) -> BilinearAxis:
        """The part of a whole axis from the first to the last pixel made of a wanted cell, ``(cells,) bool``."""
        high = np.minimum(self.low + 1, len(wanted) - 1)
        pixels = np.flatnonzero(wanted[self.low] | wanted[high])
        if not len(pixels):
            return BilinearAxis(self.low[:0], self.weights[:0], slice(0, 0))
        part = slice(int(pixels[0]), int(pixels[-1]) + 1)
        cells = slice(int(self.low[part.start]), int(high[part.stop - 1]) + 1)
        return BilinearAxis(self.low[part] - cells.start, self.weights[part], cells, part.start)


@functools.lru_cache(maxsize=32)
def bilinear_axis(cells: int, pixels: int) -> BilinearAxis:
    """The weights of bilinear interpolation from ``cells`` to ``pixels``, with torch's positions in float32.

    They are off by up to 3e-5 of a cell at the far end of a long axis, and masks shall follow them.
    """
    scale = float(np.float32(cells) / np.float32(pixels))
    position = np.clip(scale * (np.arange(pixels) + 0.5) - 0.5, 0, cells - 1).astype(np.float32)
    low = position.astype(np.int64)
    share = position - low.astype(np.float32)
    return BilinearAxis(low, np.stack([1 - share, share], axis=1), slice(0, cells))


def interpolated(source: np.ndarray, rows: BilinearAxis, columns: BilinearAxis) -> np.ndarray:
    """The pixels of two axes, ``(rows, columns) float32``, of a source ``(h, w) float32``."""
    source = source[rows.cells, columns.cells]
    if not source.size:
        return np.empty((len(rows.low), len(columns.low)), np.float32)
    high = np.minimum(rows.low + 1, source.shape[0] - 1)
    at_rows = source[rows.low] * rows.weights[:, :1] + source[high] * rows.weights[:, 1:]
    right = np.minimum(columns.low + 1, source.shape[1] - 1)
    return at_rows[:, columns.low] * columns.weights[:, 0] + at_rows[:, right] * columns.weights[:, 1]


def pasted(mask: np.ndarray, box: np.ndarray, size: tuple[int, int], threshold: float) -> np.ndarray:
    """The bitmap ``(H, W) bool`` of a mask in its box, as mmdet pastes it and cuts it at a threshold.

    Args:
        mask: ``(h, w) float32``, probabilities.
        box: x1, y1, x2, y2 in px.
        size: Height and width of the image.
        threshold: A pixel is on from this value up.
    """
    bitmap = np.zeros(size, bool)
    source = np.pad(mask, 1)
    x1, y1, x2, y2 = (float(corner) for corner in box)
    rows, columns = _pasted_axis(y1, y2, size[0], mask.shape[0]), _pasted_axis(x1, x2, size[1], mask.shape[1])
    values = interpolated(source, rows, columns)
    limit = np.nextafter(np.float32(threshold), np.float32(-1))
    bitmap[rows.pixels, columns.pixels] = values > limit
    return bitmap


def _pasted_axis(low: float, high: float, side: int, cells: int) -> BilinearAxis:
    """One axis of a box, with a pixel to spare, on a mask with a border of one cell of zeros."""
    first, last = int(max(np.floor(low) - 1, 0)), int(min(np.ceil(high) + 1, side))
    offset = np.arange(first, max(first, last)) + 0.5 - low
    # A box without extent takes everything from the middle of the mask, as stock does.
    fraction = offset / (high - low) if high != low else np.where(offset == 0, -1.0, 0.5)
    position = np.clip(fraction * cells + 0.5, 0.0, cells + 1.0)
    start = position.astype(np.int64)
    share = (position - start).astype(np.float32)
    return BilinearAxis(start, np.stack([1 - share, share], axis=1), slice(0, cells + 2), first)


def at_input(logits: np.ndarray, padded: tuple[int, int], network: tuple[int, int]) -> np.ndarray:
    """Mask logits ``(h, w)`` of a padded input, at its size, cut; -1 where all around is negative."""
    # A cell to spare on each side: the next step looks at neighbours.
    rows, columns = (
        bilinear_axis(cells, side).made_of(np.convolve(logits.max(axis) > 0, np.ones(3), 'same') > 0)
        for cells, side, axis in zip(logits.shape, padded, (1, 0), strict=True)
    )
    values = np.full(padded, -1, np.float32)
    values[rows.pixels, columns.pixels] = interpolated(logits, rows, columns)
    return values[: network[0], : network[1]]


def upsampled(logits: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, float]:
    """A mask cut at zero at the size of the image, its box, and the mean of its sigmoid, 0 for an empty mask.

    Args:
        logits: ``(h, w) float32``.
        size: Height and width of the image.
    """
    rows = bilinear_axis(logits.shape[0], size[0]).made_of(logits.max(1) > 0)
    columns = bilinear_axis(logits.shape[1], size[1]).made_of(logits.max(0) > 0)
    place = rows.pixels, columns.pixels
    values = logits[place] if logits.shape == size else interpolated(logits, rows, columns)
    inside = values > 0
    bitmap = np.zeros(size, bool)
    bitmap[place] = inside
    y, x = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(y):
        return bitmap, np.zeros(4, np.float32), 0.0
    box = np.array([x[0] + columns.first, y[0] + rows.first, x[-1] + 1 + columns.first, y[-1] + 1 + rows.first])
    sure = values[inside]
    return bitmap, box.astype(np.float32), float((1 / (1 + np.exp(-sure))).sum(dtype=np.float64) / (sure.size + 1e-6))
