"""Rasterisation of polygons at chosen rows and columns of an image that is never drawn as a whole.

A pixel belongs to an instance when it belongs to at least one of its parts, and to a part by COCO's rule, the one of
pycocotools' ``frPyObjects``: vertices are rounded to a fifth of a pixel, edges are stepped through on that lattice, and
each edge toggles a column from the lattice point on at which it passes the column's centre. The bits are the same.

Shared names: ``lattice`` (V, 2) int64, the
vertices of all parts in fifths of a pixel; ``parts`` (M + 1,) int64, part ``m`` has the vertices
``parts[m]:parts[m + 1]``; ``instances`` (N + 1,) int64, instance ``n`` has the parts ``instances[n]:instances[n + 1]``;
``first_x`` (w + 1,) int64, how many wanted columns lie before each source column; ``first_y`` (h + 1,) likewise.
"""

from __future__ import annotations

import numpy as np

from armbench_mmdet.ops.jit import compiled

STEPS = 5
_HALF = STEPS // 2


def to_lattice(coords: np.ndarray) -> np.ndarray:
    """Vertices (V, 2) in pixels as int64 in fifths of a pixel, rounded as C does it."""
    return (coords * STEPS + 0.5).astype(np.int64)


def first_wanted(wanted: np.ndarray, size: int) -> np.ndarray:
    """(size + 1,) int64: how many of the ascending source indices ``wanted`` lie before each source index."""
    return np.searchsorted(wanted, np.arange(size + 1)).astype(np.int64)


@compiled
def _toggle(x: int, y: int, first_x: np.ndarray, first_y: np.ndarray, left: int, top: int, out: np.ndarray) -> None:
    """Toggle the wanted copies of source column ``x`` from lattice height ``y`` on downwards."""
    row = min(max(-((_HALF - y) // STEPS), 0), len(first_y) - 1)
    target = first_y[row] - top
    for column in range(first_x[x] - left, first_x[x + 1] - left):
        out[target, column] ^= 1


@compiled
def _toggle_edge(
    x0: int, y0: int, x1: int, y1: int, first_x: np.ndarray, first_y: np.ndarray, left: int, top: int, out: np.ndarray
) -> None:
    """Toggle every wanted column whose centre one edge passes."""
    if x0 == x1:
        return
    dx, dy = abs(x1 - x0), abs(y1 - y0)
    width = len(first_x) - 1
    if dx >= dy:
        if x0 > x1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        slope = (y1 - y0) / dx
        for x in range(max(-((_HALF - x0) // STEPS), 0), min((x1 - 1 - _HALF) // STEPS + 1, width)):
            if first_x[x + 1] > first_x[x]:
                step = x * STEPS + _HALF - x0
                here, there = int(y0 + slope * step + 0.5), int(y0 + slope * (step + 1) + 0.5)
                _toggle(x, min(here, there), first_x, first_y, left, top, out)
        return
    if y0 > y1:
        x0, y0, x1, y1 = x1, y1, x0, y0
    slope = (x1 - x0) / dy
    before = x0
    for step in range(1, dy + 1):
        after = int(x0 + slope * step + 0.5)
        lower = min(before, after)
        if after != before and lower >= 0 and lower % STEPS == _HALF and lower // STEPS < width:
            _toggle(lower // STEPS, y0 + step - 1, first_x, first_y, left, top, out)
        before = after


@compiled
def _window(lattice: np.ndarray, first: np.ndarray) -> tuple[int, int]:
    """Range of wanted indices that vertices along one axis, (V,) int64, can reach."""
    size = len(first) - 1
    low = min(max(lattice.min() // STEPS - 1, 0), size)
    high = min(max(lattice.max() // STEPS + 2, 0), size)
    return first[low], first[high]


@compiled
def _draw_part(lattice: np.ndarray, first_x: np.ndarray, first_y: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Draw one part within its own window; return the (h + 1, w) uint8 bitmap and its left and top."""
    left, right = _window(lattice[:, 0], first_x)
    top, bottom = _window(lattice[:, 1], first_y)
    out = np.zeros((bottom - top + 1, right - left), np.uint8)
    if right > left and bottom > top:
        for v in range(len(lattice)):
            w = v + 1 if v + 1 < len(lattice) else 0
            x0, y0, x1, y1 = lattice[v, 0], lattice[v, 1], lattice[w, 0], lattice[w, 1]
            _toggle_edge(x0, y0, x1, y1, first_x, first_y, left, top, out)
        for row in range(1, bottom - top):
            for column in range(right - left):
                out[row, column] ^= out[row - 1, column]
    return out[: bottom - top], left, top


@compiled
def draw_instances(
    lattice: np.ndarray,
    parts: np.ndarray,
    instances: np.ndarray,
    first_x: np.ndarray,
    first_y: np.ndarray,
    places: np.ndarray,
    out: np.ndarray,
) -> None:
    """Draw every instance into its own plane, wanted rows and columns only.

    Args:
        lattice: See the module.
        parts: See the module.
        instances: See the module.
        first_x: See the module.
        first_y: See the module.
        places: (4,) int64: row of the first wanted row and step to the next (1 or -1), then column and step.
        out: (N, H, W) uint8 zeros, written in place.
    """
    y, y_step, x, x_step = places
    for n in range(len(instances) - 1):
        for m in range(instances[n], instances[n + 1]):
            local, left, top = _draw_part(lattice[parts[m] : parts[m + 1]], first_x, first_y)
            for row in range(local.shape[0]):
                target = out[n, y + y_step * (top + row)]
                if x_step == 1:
                    for column in range(local.shape[1]):
                        target[x + left + column] |= local[row, column]
                else:
                    for column in range(local.shape[1]):
                        target[x - left - column] |= local[row, column]


@compiled
def measure_instances(
    lattice: np.ndarray, parts: np.ndarray, instances: np.ndarray, first_x: np.ndarray, first_y: np.ndarray
) -> np.ndarray:
    """Area and extent of each instance in wanted pixels, without drawing more than its own box.

    Returns:
        (N, 5) int64: area in pixels, then x1, y1, x2, y2 with exclusive ends; all 0 where no pixel is covered.
    """
    stats = np.zeros((len(instances) - 1, 5), np.int64)
    for n in range(len(instances) - 1):
        if instances[n] == instances[n + 1]:
            continue
        vertices = lattice[parts[instances[n]] : parts[instances[n + 1]]]
        x_first, x_last = _window(vertices[:, 0], first_x)
        y_first, y_last = _window(vertices[:, 1], first_y)
        union = np.zeros((y_last - y_first, x_last - x_first), np.uint8)
        for m in range(instances[n], instances[n + 1]):
            local, left, top = _draw_part(lattice[parts[m] : parts[m + 1]], first_x, first_y)
            for row in range(local.shape[0]):
                for column in range(local.shape[1]):
                    union[top - y_first + row, left - x_first + column] |= local[row, column]
        area, x1, y1, x2, y2 = 0, x_last, y_last, 0, 0
        for row in range(union.shape[0]):
            for column in range(union.shape[1]):
                if union[row, column]:
                    area += 1
                    x1, x2 = min(x1, x_first + column), max(x2, x_first + column + 1)
                    y1, y2 = min(y1, y_first + row), max(y2, y_first + row + 1)
        if area:
            stats[n] = (area, x1, y1, x2, y2)
    return stats


@compiled
def draw_rois(
    coords: np.ndarray,
    parts: np.ndarray,
    instances: np.ndarray,
    boxes: np.ndarray,
    indices: np.ndarray,
    out: np.ndarray,
) -> None:
    """Draw instance ``indices[r]``, cropped to box ``r`` and resized, into ``out[r]``.

    Args:
        coords: (V, 2) float64, vertices in pixels.
        parts: See the module.
        instances: See the module.
        boxes: (R, 4) float32, x1, y1, x2, y2; sides under one pixel count as one, as in mmdet.
        indices: (R,) int64, the instance of each box.
        out: (R, h, w) uint8 zeros, written in place.
    """
    first_x, first_y = np.arange(out.shape[2] + 1), np.arange(out.shape[1] + 1)
    one = np.float32(1)
    for r in range(len(boxes)):
        x1, y1, x2, y2 = boxes[r]
        x_scale = np.float32(out.shape[2]) / max(x2 - x1, one)
        y_scale = np.float32(out.shape[1]) / max(y2 - y1, one)
        n = indices[r]
        for m in range(instances[n], instances[n + 1]):
            part = coords[parts[m] : parts[m + 1]]
            lattice = np.empty(part.shape, np.int64)
            for v in range(len(part)):
                lattice[v, 0] = int((part[v, 0] - x1) * x_scale * STEPS + 0.5)
                lattice[v, 1] = int((part[v, 1] - y1) * y_scale * STEPS + 0.5)
            local, left, top = _draw_part(lattice, first_x, first_y)
            for row in range(local.shape[0]):
                for column in range(local.shape[1]):
                    out[r, top + row, left + column] |= local[row, column]
