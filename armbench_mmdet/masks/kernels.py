"""Kernels that find where bitmaps and interpolated masks switch on and off, and that fill runs.

A *switch* is a position ``x · H + y``, down the columns, at which a mask changes between off and on.
"""

from functools import partial
from typing import Any

import numpy as np

from armbench_mmdet.jit import compiled


@compiled
def _longer(values: np.ndarray, count: int, room: int) -> np.ndarray:
    """Return ``values`` with space for ``room`` more after the first ``count``."""
    if count + room <= len(values):
        return values
    longer = np.empty(2 * (count + room), values.dtype)
    longer[:count] = values[:count]
    return longer


@compiled
def pasted_axis(low: float, high: float, first: int, last: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what the pixels of one axis of a pasted mask are made of, for a mask with a border of one zero cell.

    Args:
        low: Where the box begins on this axis.
        high: Where it ends; a box without extent takes everything from the middle of the mask, as stock does.
        first: First pixel of the pasted region.
        last: One past its last.
        cells: Of the mask on this axis, without the border.

    Returns:
        The first of two neighbouring cells, ``(pixels,) int64``, and the weights of both, ``(pixels, 2) float32``.
    """
    starts, weights = np.empty(last - first, np.int64), np.empty((last - first, 2), np.float32)
    for i in range(last - first):
        offset, extent = first + i + 0.5 - low, high - low
        without_extent = -1.0 if offset == 0 else 0.5
        fraction = offset / extent if extent != 0 else without_extent
        position = min(max(fraction * cells + 0.5, 0.0), cells + 1.0)
        starts[i] = int(position)
        weights[i, 1] = position - starts[i]
        weights[i, 0] = 1 - weights[i, 1]
    return starts, weights


@compiled
def _at_rows(column: np.ndarray, low: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Interpolate one source column, (h,) float32, at every row of the window."""
    last = len(column) - 1
    for row in range(len(out)):
        at = low[row]
        out[row] = column[at] * weights[row, 0] + column[min(at + 1, last)] * weights[row, 1]


@compiled
def _blend(left: np.ndarray, right: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Interpolate between two columns."""
    for row in range(len(out)):
        out[row] = left[row] * weights[0] + right[row] * weights[1]


@partial(compiled, fastmath={'reassoc', 'contract'})
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


@compiled
def _append_column(values: np.ndarray, limit: np.float32, start: int, switches: np.ndarray, count: int) -> int:
    """Append the switches of a column whose first pixel is at ``start``; return the new count."""
    inside = count > 0 and switches[count - 1] == start and values[0] > limit
    count -= inside  # the mask goes on from the foot of the column before
    for row in range(len(values)):  # no branch: noise would be mispredicted at every other pixel
        above = values[row] > limit
        switches[count] = start + row
        count += above != inside
        inside = above
    switches[count] = start + len(values)
    return count + inside


@compiled
def scan_mask(
    source: np.ndarray,
    x_low: np.ndarray,
    x_weights: np.ndarray,
    y_low: np.ndarray,
    y_weights: np.ndarray,
    corner: tuple[int, int],
    size: tuple[int, int],
    limit: np.float32,
    is_scored: bool,
) -> tuple[np.ndarray, float]:
    """Upsample a window of one mask bilinearly, outside of which nothing is above a limit.

    Args:
        source: ``(w, h) float32``, what the window is made of, transposed.
        x_low: ``(columns,) int64``, for each column of the window the left one of its two source columns.
        x_weights: ``(columns, 2) float32``, the weights of the two.
        y_low: ``(rows,) int64``, the same for rows.
        y_weights: ``(rows, 2) float32``.
        corner: x, y of the window's first pixel.
        size: Height and width of the whole mask.
        limit: The mask is where values are above it.
        is_scored: Whether the sum of the sigmoids is wanted.

    Returns:
        The switches, ``(S,) int64``, and the sum of the sigmoids of the values above zero, or 0.
    """
    rows, (height, width) = len(y_low), size
    left, right, values = np.empty(rows, np.float32), np.empty(rows, np.float32), np.empty(rows, np.float32)
    switches, count, score_sum, loaded = np.empty(1024, np.int64), 0, 0.0, -2
    for column in range(len(x_low)):
        if x_low[column] != loaded:
            if x_low[column] == loaded + 1:
                left, right = right, left
            else:
                _at_rows(source[x_low[column]], y_low, y_weights, left)
            loaded = x_low[column]
            _at_rows(source[min(loaded + 1, source.shape[0] - 1)], y_low, y_weights, right)
        _blend(left, right, x_weights[column], values)
        if is_scored:
            score_sum += sigmoid_sum(values)
        switches = _longer(switches, count, rows + 2)
        start = (corner[0] + column) * height + corner[1]
        count = _append_column(values, limit, start, switches, count)
    if count and switches[count - 1] == height * width:  # the last run ends with the image
        count -= 1
    return switches[:count], score_sum


@compiled
def run_lengths(code: np.ndarray) -> np.ndarray:
    """Decode COCO's compressed run lengths.

    Five bits a character, least significant first, from character code 48; bit 6 means more follow, the last
    bit of the last one is the sign; from the third on, counts are differences to the count before the last one
    (``rleFrString`` in pycocotools' ``maskApi.c``, which reads past the end of a broken string).

    Args:
        code: ``(C,) uint8``, the characters.

    Returns:
        ``(N,) int64``; nothing when the string is not a whole code.
    """
    counts, number, value, shift = np.empty(len(code), np.int64), 0, 0, 0
    for character in code:
        bits = int(character) - 48
        if not 0 <= bits < 64 or shift > 35:
            return counts[:0]
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts[number] = value + counts[number - 2] if number > 2 else value
        number, value, shift = number + 1, 0, 0
    return counts[: 0 if shift else number]


@compiled
def fill_runs(counts: np.ndarray, pixels: np.ndarray) -> None:
    """Set the pixels ``(W * H,) uint8``, zeros before, of every second run; they go down the columns."""
    start = 0
    for number in range(len(counts)):
        if number % 2:
            pixels[start : start + counts[number]] = 1
        start += counts[number]
