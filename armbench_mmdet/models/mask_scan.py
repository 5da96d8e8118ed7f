"""One mask at full size, column by column: the kernel behind the bounded-memory post-processing.

A mask is visited in the order in which COCO stores it. Every value is interpolated, compared with zero, scored and
forgotten, so a mask costs a few columns of memory instead of the whole image. What is left of it are its *switches*, as
in :mod:`armbench_mmdet.evaluation.rle_kernels`: the positions ``x · H + y`` at which it turns on and off again.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from armbench_mmdet.ops.jit import compiled

ROUNDING = 1.01 * 2.0**-22
"""A bilinear interpolation in float32, in any order, is within this times the sum of its four terms' sizes of the exact
one: a term goes through at most four roundings, each within a 2**-24th, and the terms of the second order are small."""


@compiled()
def _longer(values: np.ndarray, count: int, room: int) -> np.ndarray:
    """Return ``values`` with space for ``room`` more after the first ``count``."""
    if count + room <= len(values):
        return values
    longer = np.empty(2 * (count + room), values.dtype)
    longer[:count] = values[:count]
    return longer


@compiled()
def _at_rows(column: np.ndarray, low: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Interpolate one source column, (h,) float32, at every row of the window."""
    last = len(column) - 1
    for row in range(len(out)):
        at = low[row]
        out[row] = column[at] * weights[row, 0] + column[min(at + 1, last)] * weights[row, 1]


@compiled()
def _blend(left: np.ndarray, right: np.ndarray, weights: np.ndarray, margin: float, out: np.ndarray) -> int:
    """Interpolate between two columns; return how many values are within ``margin`` of zero."""
    near = 0
    for row in range(len(out)):
        value = left[row] * weights[0] + right[row] * weights[1]
        out[row] = value
        near += abs(value) <= margin
    return near


@numba.njit(cache=True, nogil=True, error_model='numpy', fastmath={'reassoc', 'contract'})
def sigmoid_sum(values: np.ndarray) -> float:
    """Sum of the sigmoids of the values above zero, each to 4e-7.

    ``exp(-v)`` is the 32nd power of the exponential of ``-v / 32``, a seventh-degree Taylor polynomial: unlike a call
    of ``exp`` it runs on whole vector registers.
    """
    total: Any = 0.0
    for row in range(len(values)):
        value = values[row]
        u = min(max(value, np.float32(0)), np.float32(32)) * np.float32(-1 / 32)
        power = np.float32(1 / 720) + u * np.float32(1 / 5040)
        power = np.float32(1 / 6) + u * (np.float32(1 / 24) + u * (np.float32(1 / 120) + u * power))
        power = np.float32(1) + u * (np.float32(1) + u * (np.float32(1 / 2) + u * power))
        for _ in range(5):
            power *= power
        total += np.float32(1) / (np.float32(1) + power) if value > 0 else np.float32(0)
    return total


@compiled()
def _is_uncertain(source: np.ndarray, x: int, x_weights: np.ndarray, y: int, y_weights: np.ndarray) -> bool:
    """Whether rounding may decide the sign of the value interpolated between the four from column x and row y on."""
    right, below = min(x + 1, source.shape[0] - 1), min(y + 1, source.shape[1] - 1)
    total, largest = 0.0, 0.0
    for column, x_weight in ((x, x_weights[0]), (right, x_weights[1])):
        for row, y_weight in ((y, y_weights[0]), (below, y_weights[1])):
            part = np.float64(x_weight) * np.float64(y_weight) * np.float64(source[column, row])
            total += part
            largest += abs(part)
    return abs(total) <= ROUNDING * largest


@compiled()
def _uncertain_rows(
    values: np.ndarray,
    margin: float,
    source: np.ndarray,
    x: int,
    x_weights: np.ndarray,
    y_low: np.ndarray,
    y_weights: np.ndarray,
) -> list[int]:
    """The rows of a column of values, made from source column x and the next, whose sign rounding may decide."""
    return [
        row
        for row in range(len(values))
        if abs(values[row]) <= margin and _is_uncertain(source, x, x_weights, y_low[row], y_weights[row])
    ]


@compiled()
def _append_switches(
    values: np.ndarray, start: int, inside: bool, switches: np.ndarray, count: int
) -> tuple[bool, int]:
    """Append the switches of a column that begins at ``start``; return whether it ends inside, and the new count."""
    for row in range(len(values)):  # no branch: noise would be mispredicted at every other pixel
        above = values[row] > 0
        switches[count] = start + row
        count += above != inside
        inside = above
    return inside, count


@compiled()
def positive_extent(source: np.ndarray) -> tuple[bool, int, int, int, int]:
    """Whether all values of (h, w) float32 are finite, and the box x1, y1, x2, y2 of those above zero."""
    height, width = source.shape
    in_column = np.zeros(width, np.bool_)
    y1, y2, broken = height, 0, 0
    for y in range(height):
        positive = 0
        for x in range(width):
            value = source[y, x]
            above = value > 0
            in_column[x] |= above
            positive += above
            broken += value - value != 0
        if positive:
            y1, y2 = min(y1, y), y + 1
    x1, x2 = width, 0
    for x in range(width):
        if in_column[x]:
            x1, x2 = min(x1, x), x + 1
    return broken == 0, x1, y1, x2, y2


@compiled()
def scan_mask(
    source: np.ndarray,
    x_low: np.ndarray,
    x_weights: np.ndarray,
    y_low: np.ndarray,
    y_weights: np.ndarray,
    corner: tuple[int, int],
    size: tuple[int, int],
    signs: np.ndarray,
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray, np.ndarray]:
    """Upsample a window of one mask bilinearly, outside of which nothing is above zero.

    Args:
        source: (w, h) float32, the mask logits the window is made of, transposed.
        x_low: (columns,) int64, for each column of the window the left one of its two source columns.
        x_weights: (columns, 2) float32, the weights of the two.
        y_low: (rows,) int64, the same for rows.
        y_weights: (rows, 2) float32.
        corner: x, y of the window's first pixel.
        size: Height and width of the whole mask.
        signs: (U,) bool, whether each of the uncertain values, in the order of the scan, is above zero; beyond its
            end the interpolated value decides.

    Returns:
        The switches, (S,) int64; the sum of the sigmoids of the values above zero; the box x1, y1, x2, y2 of the mask,
        (4,) int64; and of the uncertain values, those so close to zero that the same arithmetic in another order may
        see another sign, the positions ``x · H + y``, (U,) int64, and the signs they were given, (U,) bool.
    """
    columns, rows, (height, width) = len(x_low), len(y_low), size
    margin = np.float32(2 * ROUNDING * np.abs(source).max())
    left, right, values = np.empty(rows, np.float32), np.empty(rows, np.float32), np.empty(rows, np.float32)
    switches, count = np.empty(1024, np.int64), 0
    doubts, given, doubt_count = np.empty(8, np.int64), np.empty(8, np.bool_), 0
    box = np.array([width, height, 0, 0])
    score_sum, inside, loaded = 0.0, False, -2
    for column in range(columns):
        start = (corner[0] + column) * height + corner[1]
        if x_low[column] != loaded:
            if x_low[column] == loaded + 1:
                left, right = right, left
            else:
                _at_rows(source[x_low[column]], y_low, y_weights, left)
            loaded = x_low[column]
            _at_rows(source[min(loaded + 1, source.shape[0] - 1)], y_low, y_weights, right)
        if _blend(left, right, x_weights[column], margin, values):
            for row in _uncertain_rows(values, margin, source, loaded, x_weights[column], y_low, y_weights):
                if doubt_count < len(signs):
                    values[row] = 1e-30 if signs[doubt_count] else -1e-30
                doubts, given = _longer(doubts, doubt_count, 1), _longer(given, doubt_count, 1)
                doubts[doubt_count], given[doubt_count] = start + row, values[row] > 0
                doubt_count += 1
        score_sum += sigmoid_sum(values)
        switches = _longer(switches, count, rows + 2)
        if inside and corner[1] > 0:  # the mask reached the image's lower edge; this column starts below its upper one
            switches[count] = start - corner[1]
            count, inside = count + 1, False
        before, first = inside, count
        inside, count = _append_switches(values, start, inside, switches, count)
        if count > first or inside:
            top = 0 if before else switches[first] - start
            bottom = rows if inside else switches[count - 1] - start
            box[0], box[2] = min(box[0], corner[0] + column), corner[0] + column + 1
            box[1], box[3] = min(box[1], corner[1] + top), max(box[3], corner[1] + bottom)
        if inside and (corner[1] + rows < height or (column + 1 == columns and corner[0] + columns < width)):
            switches[count] = start + rows
            count, inside = count + 1, False
    return switches[:count], score_sum, box, doubts[:doubt_count], given[:doubt_count]
