"""Low-resolution mask logits to run lengths at the size of the image, without the image in between."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures.mask import mask2bbox
from torch import Tensor

from armbench_mmdet.errors import InputError
from armbench_mmdet.jit import map_threads
from armbench_mmdet.masks.encode import encode_masks, encode_switches
from armbench_mmdet.masks.kernels import scan_mask
from armbench_mmdet.masks.runs import measure


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
    score = (values.sigmoid() * mask).sum(dtype=torch.float64) / (mask.sum() + 1e-6)
    x1, y1, x2, y2 = mask2bbox(mask[None])[0].tolist()
    return UpsampledMask(encode_masks(mask[None])[0], (x1, y1, x2, y2), float(score))


def _scanned(logits: np.ndarray, size: tuple[int, int]) -> UpsampledMask:
    column_maxima, row_maxima = logits.max(0), logits.max(1)
    _refuse_not_finite(bool(np.isfinite(row_maxima).all() and np.isfinite(logits.min())))
    columns = bilinear_axis(logits.shape[1], size[1]).made_of(column_maxima > 0)
    rows = bilinear_axis(logits.shape[0], size[0]).made_of(row_maxima > 0)
    window = np.ascontiguousarray(logits[rows.cells, columns.cells].T)
    if not window.size:
        return UpsampledMask(encode_switches(np.empty(0, np.int64), size), (0.0, 0.0, 0.0, 0.0), 0.0)
    axes = columns.low, columns.weights, rows.low, rows.weights
    switches, score_sum = scan_mask(window, *axes, (columns.first, rows.first), size, np.float32(0), True)
    box = np.zeros(4)
    area = measure(np.append(switches, [size[0] * size[1]] * (len(switches) % 2)), size[0], box)
    x1, y1, x2, y2 = box.tolist()
    return UpsampledMask(encode_switches(switches, size), (x1, y1, x2, y2), score_sum / (area + 1e-6))


def _refuse_not_finite(is_finite: bool) -> None:
    if not is_finite:
        raise InputError(
            'mask logits must be finite, got NaN or infinity; the training has diverged or the checkpoint is damaged'
        )


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


def resized_axis(low: float, high: float, side: int, cells: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Torchvision's rule of pasting: the mask with its border is resized to whole pixels, and put at a whole pixel.

    See :data:`~armbench_mmdet.masks.encode.PastedAxis`.
    """
    half = np.float32(high - low) * np.float32(0.5) * np.float32((cells + 2) / cells)
    centre = np.float32(high + low) * np.float32(0.5)
    start, end = int(centre - half), int(centre + half)
    axis = bilinear_axis(cells + 2, max(end - start + 1, 1))
    first, last = max(start, 0), min(end + 1, side)
    inside = slice(first - start, max(last, first) - start)
    return first, axis.low[inside], axis.weights[inside]
