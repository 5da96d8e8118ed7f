"""Bitmaps into polygons that draw exactly the same pixels."""

from __future__ import annotations

import numpy as np


def trace_bitmap(bitmap: np.ndarray) -> list[np.ndarray]:
    """The polygon of a bitmap (H, W): one flat array that draws exactly its pixels, or no array when none is set.

    The set pixels are cut into rectangles (equal runs in consecutive columns make one). From a line along the top the
    polygon visits one after the other, from left to right, and returns along that line. What it walks twice
    cancels out, so holes and islands need no special case.
    """
    sides = [np.flatnonzero(np.asarray(bitmap).any(axis=axis)) for axis in (0, 1)]
    if not len(sides[0]):
        return []
    left, top = sides[0][0], sides[1][0]
    inner = np.asarray(bitmap[top : sides[1][-1] + 1, left : sides[0][-1] + 1], bool).T
    padded = np.pad(inner, ((0, 0), (1, 1)))
    columns, ends = np.nonzero(padded[:, 1:] != padded[:, :-1])
    columns, starts, stops = columns[::2] + left, ends[::2] + top, ends[1::2] + top
    order = np.lexsort((columns, stops, starts))
    columns, starts, stops = columns[order], starts[order], stops[order]
    fresh = np.ones(len(columns), bool)
    fresh[1:] = (np.diff(columns) != 1) | (np.diff(starts) != 0) | (np.diff(stops) != 0)
    heads = np.flatnonzero(fresh)
    x1, x2 = columns[heads], columns[np.append(heads[1:], len(columns)) - 1] + 1
    y0, y1, y2 = np.full(len(heads), top), starts[heads], stops[heads]
    visits = np.stack([x1, y0, x1, y1, x2, y1, x2, y2, x1, y2, x1, y0], axis=1)
    return [visits[np.argsort(x1, kind='stable')].reshape(-1).astype(np.float64)]
