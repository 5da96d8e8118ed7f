"""Low-resolution mask logits to run lengths at the size of the image, without the image in between."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures.mask import mask2bbox
from torch import Tensor

from armbench_mmdet.errors import InputError
from armbench_mmdet.jit import compiled
from armbench_mmdet.masks.encode import encode_masks
from armbench_mmdet.masks.kernels import compressed

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


_AT_ONCE = 16
"""Masks of which the pool may hold intermediate results."""


@dataclass(frozen=True)
class UpsampledMask:
    """A binary mask at image size, and what its logits said.

    Attributes:
        rle: COCO run lengths, ``counts`` as str.
        box: x1, y1, x2, y2 in pixels, ends excluded; zeros for an empty mask.
        score: Mean of the sigmoid over the mask; 0 for an empty mask.
    """

    rle: dict[str, Any]
    box: tuple[float, float, float, float]
    score: float


def upsample_masks(logits: Sequence[Tensor], size: tuple[int, int]) -> list[UpsampledMask]:
    """Upsample mask logits bilinearly and cut them at zero.

    The masks equal those of ``interpolate(logits, size, mode='bilinear', align_corners=False) > 0`` pixel by pixel.
    float32 on the CPU goes through :func:`~armbench_mmdet.masks.upsample.scan_mask`, on several threads; anything
    else through torch, one mask at a time.

    Args:
        logits: N masks, each (h, w) floating point.
        size: H, W of the masks.

    Raises:
        InputError: A logit is NaN or infinite.
    """
    if not all(one.device.type == 'cpu' and one.dtype == torch.float32 for one in logits):
        return [_interpolated(one.detach(), size) for one in logits]
    masks: list[UpsampledMask] = []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start in range(0, len(logits), _AT_ONCE):
            part = [one.detach() for one in logits[start : start + _AT_ONCE]]
            scans = pool.map(lambda one: _scan(one, size), part)
            # torch has threads of its own, so doubts are settled here and not in the pool.
            masks += [_settled(scan, one, size) for scan, one in zip(scans, part, strict=True)]
    return masks


def _interpolate(logits: Tensor, size: Sequence[int]) -> Tensor:
    """(h, w) to (H, W), as the stock head does it."""
    return F.interpolate(logits[None, None], size=tuple(size), mode='bilinear', align_corners=False)[0, 0]


def _interpolated(logits: Tensor, size: tuple[int, int]) -> UpsampledMask:
    values = _interpolate(logits, size)
    _refuse_not_finite(bool(values.isfinite().all()))
    mask = values > 0
    score = (values.sigmoid() * mask).sum(dtype=torch.float64) / (mask.sum() + 1e-6)
    x1, y1, x2, y2 = mask2bbox(mask[None])[0].tolist()
    return UpsampledMask(encode_masks(mask[None])[0], (x1, y1, x2, y2), float(score))


@dataclass(frozen=True)
class _Scan:
    """A mask, and what of it is in doubt.

    Attributes:
        mask: The mask if the doubts are decided as ``signs`` says.
        doubts: Positions ``x · H + y`` of values too close to zero, (U,) int64.
        signs: Whether each was taken to be above zero, (U,) bool.
        again: Makes the mask with other signs.
    """

    mask: UpsampledMask
    doubts: np.ndarray
    signs: np.ndarray
    again: Callable[[np.ndarray], _Scan]


def _scan(logits: Tensor, size: tuple[int, int]) -> _Scan:
    source = logits.numpy()
    is_finite, *extent = positive_extent(source)
    _refuse_not_finite(is_finite)
    columns = bilinear_axis(source.shape[1], size[1]).reached_from(extent[0], extent[2])
    rows = bilinear_axis(source.shape[0], size[0]).reached_from(extent[1], extent[3])
    window = np.ascontiguousarray(source[rows.cells, columns.cells].T)

    def scan(signs: np.ndarray) -> _Scan:
        axes = columns.low, columns.weights, rows.low, rows.weights
        found = scan_mask(window, *axes, (columns.first, rows.first), size, signs)
        switches, score_sum, box, doubts, signs = found
        return _Scan(_mask(switches, score_sum, box, size), doubts, signs, scan)

    if not window.size:
        empty = np.empty(0, np.int64)
        return _Scan(_mask(empty, 0.0, np.zeros(4), size), empty, empty > 0, scan)
    return scan(np.empty(0, np.bool_))


def _settled(scan: _Scan, logits: Tensor, size: tuple[int, int]) -> UpsampledMask:
    """The mask with every doubt decided by torch's own arithmetic, of which nothing else knows the last bit."""
    if not len(scan.doubts):
        return scan.mask
    x, y = np.divmod(scan.doubts, size[0])
    signs = _interpolate(logits, size).numpy()[y, x] > 0
    return scan.mask if np.array_equal(signs, scan.signs) else scan.again(signs).mask


def _mask(switches: np.ndarray, score_sum: float, box: np.ndarray, size: tuple[int, int]) -> UpsampledMask:
    if not len(switches):
        box = np.zeros(4)
    x1, y1, x2, y2 = box.astype(float).tolist()
    ends = np.append(switches[1::2], size[0] * size[1])[: (len(switches) + 1) // 2]
    area = int((ends - switches[::2]).sum())
    return UpsampledMask(_rle(switches, size), (x1, y1, x2, y2), score_sum / (area + 1e-6))


def _rle(switches: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    text = np.empty(7 * (len(switches) + 1), np.uint8)
    length = compressed(switches, size[0] * size[1], text)
    return {'size': list(size), 'counts': text[:length].tobytes().decode('ascii')}


def _refuse_not_finite(is_finite: bool) -> None:
    if not is_finite:
        raise InputError(
            'mask logits must be finite, got NaN or infinity; the training has diverged or the checkpoint is damaged'
        )


@dataclass(frozen=True)
class BilinearAxis:
    """Which two source cells each pixel of one upsampled axis is made of.

    Attributes:
        low: (pixels,) int64, the first of the two, counted from the start of ``cells``; the second is the next one,
            if there is one.
        weights: (pixels, 2) float32.
        cells: The source cells in use.
        first: The axis's pixel that comes first here.
    """

    low: np.ndarray
    weights: np.ndarray
    cells: slice
    first: int = 0

    def reached_from(self, start: int, stop: int) -> BilinearAxis:
        """The part of a whole axis whose pixels are made of any of the cells from ``start`` to before ``stop``."""
        pixels = np.flatnonzero((self.low + 1 >= start) & (self.low < stop))
        if not len(pixels):
            return BilinearAxis(self.low[:0], self.weights[:0], slice(0, 0))
        part = slice(int(pixels[0]), int(pixels[-1]) + 1)
        low = self.low[part]
        cells = slice(int(low[0]), min(int(low[-1]) + 2, self.cells.stop))
        return BilinearAxis(low - cells.start, self.weights[part], cells, part.start)


@functools.lru_cache(maxsize=32)
def bilinear_axis(cells: int, pixels: int) -> BilinearAxis:
    """The weights of bilinear interpolation from ``cells`` to ``pixels``, read off torch's answer to unit vectors.

    Computing them again would need the exact order of roundings, which differs between torch's builds.
    """
    answer = F.interpolate(torch.eye(cells)[:, None, :, None], (pixels, 1), mode='bilinear', align_corners=False)
    matrix = answer[:, 0, :, 0].numpy()  # (cells, pixels)
    low = (matrix > 0).argmax(axis=0)
    high = np.minimum(low + 1, cells - 1)
    at = np.arange(pixels)
    weights = np.stack([matrix[low, at], np.where(high > low, matrix[high, at], 0)], axis=1)
    return BilinearAxis(low, weights.astype(np.float32), slice(0, cells))
