"""Low-resolution masks to run lengths at the size of the image, without the image in between.

A *switch* is a position ``x · H + y``, down the columns, at which a mask changes between off and on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor

from armbench_mmdet.errors import InputError
from armbench_mmdet.jit import compiled, map_threads
from armbench_mmdet.masks.encode import encode_masks, encode_switches


@compiled
def neighbours(positions: np.ndarray, last: float) -> tuple[np.ndarray, np.ndarray]:
    """The first of the two cells around each position, moved to one from 0 to ``last``, and the weights of both.

    Returns:
        ``(pixels,) int64`` and ``(pixels, 2) float32``.
    """
    low, weights = np.empty(len(positions), np.int64), np.empty((len(positions), 2), np.float32)
    for i in range(len(positions)):
        position = min(max(positions[i], 0.0), last)
        low[i] = int(position)
        weights[i, 1] = position - low[i]
        weights[i, 0] = 1 - weights[i, 1]
    return low, weights


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
    height: int,
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
        height: Of the whole mask.
        limit: The mask is where values are above it.
        is_scored: Whether the sum of the sigmoids is wanted.

    Returns:
        The switches, ``(S,) int64``, and the sum of the sigmoids of the values above zero, or 0.
    """
    rows = len(y_low)
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
        if switches.size < count + rows + 2:
            switches = np.concatenate((switches, np.empty(switches.size + rows + 2, np.int64)))
        start = (corner[0] + column) * height + corner[1]
        count = _append_column(values, limit, start, switches, count)
    return switches[:count], score_sum


@functools.lru_cache(maxsize=32)
def bilinear_axis(cells: int, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """What bilinear interpolation makes the pixels of an axis of, see :func:`neighbours`.

    Positions are torch's in float32. They are off by up to 3e-5 of a cell at the far end of a long axis, and masks
    shall follow them.
    """
    scale = float(np.float32(cells) / np.float32(pixels))
    return neighbours((scale * (np.arange(pixels) + 0.5) - 0.5).astype(np.float32), cells - 1.0)


PastedAxis = Callable[[float, float, int, int], tuple[int, np.ndarray, np.ndarray]]
"""What one axis of a pasted mask is made of, given where its box begins and ends, the image's side and the mask's.

It answers with the first pixel of the pasted region and, for each of its pixels, the first of the two cells it lies
between, ``(pixels,) int64``, and the weights of both, ``(pixels, 2) float32``; the mask has a border of one zero cell.
"""


def pasted_pixels(low: float, high: float, side: int, cells: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Mmdet's rule: each pixel is where it lies in the box, which has a pixel to spare around it.

    A box without extent takes everything from the middle of the mask.
    """
    first, last = int(max(np.floor(low) - 1, 0)), int(min(np.ceil(high) + 1, side))
    offsets = np.arange(first, last) + 0.5 - low
    fractions = offsets / (high - low) if high != low else np.where(offsets == 0, -1.0, 0.5)
    return first, *neighbours(fractions * cells + 0.5, cells + 1.0)


def resized_axis(low: float, high: float, side: int, cells: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Torchvision's rule of pasting: the mask with its border is resized to whole pixels, and put at a whole pixel.

    See :data:`~armbench_mmdet.masks.encode.PastedAxis`.
    """
    half = np.float32(high - low) * np.float32(0.5) * np.float32((cells + 2) / cells)
    centre = np.float32(high + low) * np.float32(0.5)
    start, end = int(centre - half), int(centre + half)
    first, last = max(start, 0), min(end + 1, side)
    inside = slice(first - start, max(last, first) - start)
    starts, weights = bilinear_axis(cells + 2, max(end - start + 1, 1))
    return first, starts[inside], weights[inside]


def encode_boxed_masks(
    masks: Tensor,
    boxes: Tensor,
    height: int,
    width: int,
    threshold: float = 0.5,
    axis: PastedAxis = pasted_pixels,
) -> list[dict[str, Any]]:
    """Paste masks into their boxes and encode them, computing nothing outside the boxes.

    As ``mmdet.models.roi_heads.mask_heads.fcn_mask_head._do_paste_mask`` followed by ``>= threshold`` and
    ``pycocotools.mask.encode``, but for pixels within 1e-4 of the threshold, on which roundings decide.

    Args:
        masks: ``(N, h, w)`` float probabilities from 0 to 1.
        boxes: ``(N, 4)`` float xyxy in image pixels.
        height: Of the image.
        width: Of the image.
        threshold: A pixel is on from this value up; at least 0.
        axis: Another rule of pasting than mmdet's.

    Returns:
        N COCO RLE dicts with ``counts`` as str.
    """
    corners = boxes.detach().to('cpu', torch.float32).numpy()
    # With a border of zeros, transposed: the kernel walks down columns.
    sources = F.pad(masks.detach().to('cpu', torch.float32), (1, 1, 1, 1)).transpose(1, 2).contiguous().numpy()
    limit = np.nextafter(np.float32(threshold), np.float32(-1))

    def encode_one(index: int) -> dict[str, Any]:
        source, (x0, y0, x1, y1) = sources[index], corners[index].tolist()
        left, *columns = axis(x0, x1, width, source.shape[0] - 2)
        top, *rows = axis(y0, y1, height, source.shape[1] - 2)
        switches, _ = scan_mask(source, *columns, *rows, (left, top), height, limit, False)
        return encode_switches(switches, (height, width))

    return map_threads(encode_one, range(len(sources)))


class UpsampledMask(NamedTuple):
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

    The masks are those of ``interpolate(logits, size, mode='bilinear', align_corners=False) > 0``, but for pixels whose
    probability is within 1e-4 of a half. float32 on the CPU goes through a kernel, on several threads; anything else
    through torch, one mask at a time.

    Args:
        logits: N masks, each ``(h, w)`` floating point.
        size: Height and width of the masks.

    Raises:
        InputError: A logit is NaN or infinite.
    """
    if not all(one.device.type == 'cpu' and one.dtype == torch.float32 for one in logits):
        return [_interpolated(one.detach(), size) for one in logits]
    return map_threads(lambda one: _scanned(one.detach().numpy(), size), logits)


def _interpolated(logits: Tensor, size: tuple[int, int]) -> UpsampledMask:
    values = F.interpolate(logits[None, None], size=size, mode='bilinear', align_corners=False)[0, 0]
    _refuse_not_finite(bool(values.isfinite().all()))
    mask = values > 0
    return _measured(encode_masks(mask[None])[0], float((values.sigmoid() * mask).sum(dtype=torch.float64)))


def _scanned(logits: np.ndarray, size: tuple[int, int]) -> UpsampledMask:
    column_maxima, row_maxima = logits.max(0), logits.max(1)
    _refuse_not_finite(bool(np.isfinite(row_maxima).all() and np.isfinite(logits.min())))
    x_cells, x, *columns = _window(column_maxima > 0, size[1])
    y_cells, y, *rows = _window(row_maxima > 0, size[0])
    window = np.ascontiguousarray(logits[y_cells, x_cells].T)
    switches, score_sum = scan_mask(window, *columns, *rows, (x, y), size[0], np.float32(0), True)
    return _measured(encode_switches(switches, size), score_sum)


def _measured(rle: dict[str, Any], score_sum: float) -> UpsampledMask:
    x, y, width, height = coco_mask.toBbox(rle).tolist()
    return UpsampledMask(rle, (x, y, x + width, y + height), score_sum / (int(coco_mask.area(rle)) + 1e-6))


def _refuse_not_finite(is_finite: bool) -> None:
    if not is_finite:
        raise InputError(
            'mask logits must be finite, got NaN or infinity; the training has diverged or the checkpoint is damaged'
        )


def _window(wanted: np.ndarray, pixels: int) -> tuple[slice, int, np.ndarray, np.ndarray]:
    """The part of one upsampled axis from the first to the last pixel made of a wanted cell, ``(cells,) bool``.

    Returns:
        The cells in use, the first pixel, and of each pixel :func:`bilinear_axis`'s cell, from the start of those in
        use, and weights.
    """
    low, weights = bilinear_axis(len(wanted), pixels)
    high = np.minimum(low + 1, len(wanted) - 1)
    places = np.flatnonzero(wanted[low] | wanted[high])
    if not len(places):
        return slice(0, 0), 0, low[:0], weights[:0]
    first, last = int(places[0]), int(places[-1])
    cells = slice(int(low[first]), int(high[last]) + 1)
    return cells, first, low[first : last + 1] - cells.start, weights[first : last + 1]
