"""Mask logits at image size, one mask at a time, kept as run lengths: the same masks in a fraction of the memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures.mask import mask2bbox
from torch import Tensor

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.rle import encode_masks
from armbench_mmdet.evaluation.rle_kernels import compressed
from armbench_mmdet.models.mask_scan import positive_extent, scan_mask

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
    float32 on the CPU goes through :func:`~armbench_mmdet.models.mask_scan.scan_mask`, on several threads; anything
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
