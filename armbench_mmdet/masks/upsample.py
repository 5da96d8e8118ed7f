"""Low-resolution masks to run lengths at the size of the image, without the image in between.

A *switch* is a position ``x · H + y``, down the columns, at which a mask changes between off and on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from armbench_mmdet.errors import InputError
from armbench_mmdet.jit import compiled, map_threads
from armbench_mmdet.masks.encode import device_switches, encode_switches
from armbench_mmdet.masks.runs import measure


class Axis(NamedTuple):
    """What the pixels of one axis of a window are made of: two neighbouring cells each."""

    first: int  # the window's first pixel
    low: np.ndarray  # (pixels,) int64, the first of the two cells; the second is the next one, if there is one
    weights: np.ndarray  # (pixels, 2) float32, of both


def axis_of(first: int, positions: np.ndarray, cells: int) -> Axis:
    """The axis whose pixels lie at positions ``(pixels,)``, moved to between the first and the last of the cells."""
    positions = np.clip(positions, 0, cells - 1)
    low = positions.astype(np.int64)
    shares = (positions - low).astype(np.float32)
    return Axis(first, low, np.stack([1 - shares, shares], axis=1))


@compiled
def _at_rows(column: np.ndarray, rows: Axis, out: np.ndarray) -> None:
    """Interpolate one source column, (h,) float32, at every row of the window."""
    last = len(column) - 1
    for row in range(len(out)):
        at = rows.low[row]
        out[row] = column[at] * rows.weights[row, 0] + column[min(at + 1, last)] * rows.weights[row, 1]


@compiled
def _blend(left: np.ndarray, right: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Interpolate between two columns."""
    for row in range(len(out)):
        out[row] = left[row] * weights[0] + right[row] * weights[1]


@functools.partial(compiled, fastmath={'reassoc', 'contract'})
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
    source: np.ndarray, columns: Axis, rows: Axis, height: int, limit: np.float32, is_scored: bool
) -> tuple[np.ndarray, float]:
    """Upsample a window of one mask bilinearly, outside of which nothing is above a limit.

    Args:
        source: ``(w, h) float32``, what the window is made of, transposed.
        columns: The window's columns.
        rows: Its rows.
        height: Of the whole mask.
        limit: The mask is where values are above it.
        is_scored: Whether the sum of the sigmoids is wanted.

    Returns:
        The switches, ``(S,) int64``, as many on as off, and the sum of the sigmoids of the values above zero, or 0.
    """
    room = len(rows.low)
    left, right, values = np.empty(room, np.float32), np.empty(room, np.float32), np.empty(room, np.float32)
    switches: Any = np.empty(1024, np.int64)
    count, score_sum, loaded = 0, 0.0, -2
    for column, low in enumerate(columns.low):
        if low != loaded:
            if low == loaded + 1:
                left, right = right, left
            else:
                _at_rows(source[low], rows, left)
            loaded = low
            _at_rows(source[min(low + 1, source.shape[0] - 1)], rows, right)
        _blend(left, right, columns.weights[column], values)
        if is_scored:
            score_sum += sigmoid_sum(values)
        if switches.size < count + room + 2:
            switches = np.concatenate((switches, np.empty(switches.size + room + 2, np.int64)))
        count = _append_column(values, limit, (columns.first + column) * height + rows.first, switches, count)
    return switches[:count], score_sum


@functools.lru_cache(maxsize=32)
def bilinear_axis(cells: int, pixels: int) -> Axis:
    """The whole axis of bilinear interpolation.

    Positions are torch's in float32. They are off by up to 3e-5 of a cell at the far end of a long axis, and masks
    shall follow them.
    """
    scale = float(np.float32(cells) / np.float32(pixels))
    return axis_of(0, (scale * (np.arange(pixels) + 0.5) - 0.5).astype(np.float32), cells)


# Of a pasted mask with a border of one zero cell, given where its box begins and ends, the image's side and the mask's
# without the border.
PastedAxis = Callable[[float, float, int, int], Axis]


def pasted_pixels(low: float, high: float, side: int, cells: int) -> Axis:
    """Mmdet's rule of pasting: each pixel is where it lies in the box, which has a pixel to spare around it.

    A box without extent takes everything from the middle of the mask.
    """
    first, last = int(max(np.floor(low) - 1, 0)), int(min(np.ceil(high) + 1, side))
    offsets = np.arange(first, last) + 0.5 - low
    fractions = offsets / (high - low) if high != low else np.where(offsets == 0, -1.0, 0.5)
    return axis_of(first, fractions * cells + 0.5, cells + 2)


def resized_axis(low: float, high: float, side: int, cells: int) -> Axis:
    """Torchvision's: the mask with its border is resized to whole pixels, and put at a whole pixel."""
    half = np.float32(high - low) * np.float32(0.5) * np.float32((cells + 2) / cells)
    centre = np.float32(high + low) * np.float32(0.5)
    start, end = int(centre - half), int(centre + half)
    first, last = max(start, 0), min(end + 1, side)
    inside = slice(first - start, max(last, first) - start)
    whole = bilinear_axis(cells + 2, max(end - start + 1, 1))
    return Axis(first, whole.low[inside], whole.weights[inside])


def encode_boxed_masks(
    masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.5, axis: PastedAxis = pasted_pixels
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
        columns, rows = axis(x0, x1, width, source.shape[0] - 2), axis(y0, y1, height, source.shape[1] - 2)
        switches, _ = scan_mask(source, columns, rows, height, limit, False)
        return encode_switches(switches, (height, width))

    return map_threads(encode_one, range(len(sources)))


class UpsampledMask(NamedTuple):
    """A binary mask at image size, and what its logits said."""

    rle: dict[str, Any]  # COCO run lengths, counts as str
    box: tuple[float, ...]  # x1, y1, x2, y2 in px, ends excluded; zeros for an empty mask
    score: float  # mean of the sigmoid over the mask; 0 for an empty mask


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
    return _measured(device_switches(mask), float((values.sigmoid() * mask).sum(dtype=torch.float64)), size)


def _scanned(logits: np.ndarray, size: tuple[int, int]) -> UpsampledMask:
    column_maxima, row_maxima = logits.max(0), logits.max(1)
    _refuse_not_finite(bool(np.isfinite(row_maxima).all() and np.isfinite(logits.min())))
    across, columns = _window(column_maxima, size[1])
    down, rows = _window(row_maxima, size[0])
    window = cv2.transpose(logits[down, across])
    switches, score_sum = scan_mask(window, columns, rows, size[0], np.float32(0), True)
    return _measured(switches, score_sum, size)


def _measured(switches: np.ndarray, score_sum: float, size: tuple[int, int]) -> UpsampledMask:
    box = np.zeros(4)
    area = measure(switches, size[0], box)
    return UpsampledMask(encode_switches(switches, size), tuple(box.tolist()), score_sum / (area + 1e-6))


def _refuse_not_finite(is_finite: bool) -> None:
    if not is_finite:
        raise InputError(
            'mask logits must be finite, got NaN or infinity; the training has diverged or the checkpoint is damaged'
        )


def _window(maxima: np.ndarray, pixels: int) -> tuple[slice, Axis]:
    """The part of one axis from the first to the last pixel made of a cell whose maximum ``(cells,)`` is above zero.

    Returns:
        The cells in use, from which those of the axis count, and the axis.
    """
    _, low, weights = bilinear_axis(len(maxima), pixels)
    wanted = np.flatnonzero(maxima > 0)
    first, end = np.searchsorted(low, [wanted[0] - 1, wanted[-1] + 1]).tolist() if len(wanted) else (0, 0)
    cells = slice(int(low[first]), int(low[end - 1]) + 2) if first < end else slice(0, 1)
    return cells, Axis(first, low[first:end] - cells.start, weights[first:end])
