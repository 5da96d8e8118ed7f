"""RoIAlign of bin means: sample positions, the dispatch to a backend, and the backends in torch and in numba."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from armbench_mmdet.errors import InputError
from armbench_mmdet.jit import compiled, map_threads
from armbench_mmdet.ops.backend import choose_backend

AVERAGE = 1
"""The extension's number for pooling means; maxima, 0, are not provided."""

CHUNK_ELEMENTS = 2**25
"""Elements of an intermediate result in torch: 128 MB in single precision."""

CHANNEL_BLOCK = 32
"""Channels of a task in numba: enough for wide registers, few enough that the block's map stays in the cache."""

Array = NDArray[Any]
Axis = tuple[Array, Array]
"""How much each cell along an axis counts in each bin, ``(N, P, cells)``; first cell of a bin and the last plus one."""


class Bins(NamedTuple):
    """How an RoI is divided and sampled, in the extension's words."""

    aligned_height: int
    """Bins per RoI, vertically."""
    aligned_width: int
    """Bins per RoI, horizontally."""
    spatial_scale: float
    """Feature cells per pixel."""
    sampling_ratio: int
    """Samples per bin and axis; 0 for as many as the bin has cells, rounded up."""
    aligned: bool
    """Cell centres lie at half-integers, as they do, and RoIs may be smaller than a cell."""


def sample_positions(boxes: Tensor, axis: int, bins: Bins) -> tuple[Tensor, Tensor]:
    """Return sample positions along one axis.

    The operations and their order are those of the compiled operator, so that single precision gives the same bits.

    Args:
        boxes: ``(N, 5)``, image index and x1 y1 x2 y2 in pixels.
        axis: 0 for x, 1 for y.
        bins: How to divide the boxes.

    Returns:
        Positions in cells, ``(N, P, G)`` for P bins of at most G samples, NaN where a bin has fewer; and the samples
        per bin, ``(N,) int64``.
    """
    pooled = bins.aligned_width if axis == 0 else bins.aligned_height
    scale = float(np.float32(bins.spatial_scale))  # the compiled operator takes it in single precision
    shift = 0.5 if bins.aligned else 0.0
    start = boxes[:, 1 + axis] * scale - shift
    size = boxes[:, 3 + axis] * scale - shift - start
    bin_size = (size if bins.aligned else size.clamp(min=1)) / pooled
    counts = bin_size.ceil().long() if bins.sampling_ratio <= 0 else start.new_full((), bins.sampling_ratio).long()
    counts = counts.expand(len(boxes))
    index = torch.arange(pooled, dtype=boxes.dtype, device=boxes.device)[:, None]
    sample = torch.arange(int(counts.max()), dtype=boxes.dtype, device=boxes.device)
    start, bin_size, counts_column = start[:, None, None], bin_size[:, None, None], counts[:, None, None]
    within = (sample + 0.5) * bin_size / counts_column.to(boxes.dtype)
    positions = start + index * bin_size + within
    return positions.masked_fill(sample >= counts_column, torch.nan), counts


def _wide(tensor: Tensor) -> Tensor:
    """Return a tensor in single precision or better."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


@contextmanager
def _wide_target(tensor: Tensor) -> Iterator[Tensor]:
    """Lend a tensor to write to in :func:`_wide`'s form; what is written ends up in the given one."""
    target = _wide(tensor)
    yield target
    if target is not tensor:
        tensor.copy_(target)


def _check(rois: Tensor, images: int, aligned: bool, pool_mode: int) -> None:
    """Refuse maxima, and RoIs that the compiled operator would answer with a crash or another image's memory."""
    if pool_mode != AVERAGE:
        raise InputError(
            "pool_mode must be 'avg', got 'max' (in roi_align); maxima are not provided without compiling mmcv"
        )
    if rois.ndim != 2 or rois.shape[1] != 5:
        raise InputError(f'rois must be (N, 5), got {tuple(rois.shape)} (in roi_align)')
    ordered = (rois[:, 1:3] <= rois[:, 3:5]).all(1) if aligned else rois.new_ones(len(rois), dtype=torch.bool)
    valid = rois.isfinite().all(1) & (rois[:, 0] >= 0) & (rois[:, 0] < images) & ordered
    if not valid.all():
        index = int((~valid).nonzero()[0])
        raise InputError(
            f'rois must be finite, have an image index below {images} and, when aligned, no negative size, '
            f'got {rois[index].tolist()} (RoI {index} of {len(rois)}, in roi_align)'
        )


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, *, pool_mode: int, **options: Any
) -> None:
    """Fill in the pooled features of every RoI.

    Args:
        input: ``(B, C, H, W)``; half precision is computed in single precision.
        rois: ``(N, 5)``, image index and x1 y1 x2 y2 in pixels of the input image.
        output: Overwritten; ``(N, C, aligned_height, aligned_width)``.
        argmax_y: Of no effect: where maxima lie.
        argmax_x: Likewise.
        pool_mode: 1, for the mean of a bin's samples.
        **options: Of :class:`Bins`.

    Raises:
        InputError: An RoI is not finite, of no image, or has a negative size while ``aligned``; or the mode is not 1.
    """
    bins = Bins(**options)
    _check(rois, input.shape[0], bins.aligned, pool_mode)
    if output.numel() == 0:
        return
    features = _wide(input.detach())
    boxes = rois.detach().to(features.dtype)
    backend = choose_backend('roi_align', features.device)
    if backend == 'torchvision':
        arguments = (bins.spatial_scale, bins.aligned_height, bins.aligned_width, bins.sampling_ratio, bins.aligned)
        output.copy_(torch.ops.torchvision.roi_align(features, boxes, *arguments))
        return
    pool = _pool_numba if backend == 'numba' else _pool_torch
    with _wide_target(output) as target, torch.autocast(features.device.type, enabled=False):
        pool(features, target, boxes, bins, backward=False)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    pool_mode: int,
    **options: Any,
) -> None:
    """Add the gradient at the features to ``grad_input (B, C, H, W)``, for ``grad_output (N, C, P, Q)``.

    All else is as in the forward pass.
    """
    if grad_output.numel() == 0:
        return
    bins, gradient = Bins(**options), _wide(grad_output.detach()).contiguous()
    boxes = rois.detach().to(gradient.dtype)
    backend = choose_backend('roi_align', gradient.device)
    if backend == 'torchvision':
        scale_and_bins = (bins.spatial_scale, bins.aligned_height, bins.aligned_width)
        sampling = (bins.sampling_ratio, bins.aligned)
        grad_input.add_(
            torch.ops.torchvision._roi_align_backward(gradient, boxes, *scale_and_bins, *grad_input.shape, *sampling)
        )
        return
    pool = _pool_numba if backend == 'numba' else _pool_torch
    with _wide_target(grad_input) as target, torch.autocast(gradient.device.type, enabled=False):
        pool(target, gradient, boxes, bins, backward=True)


def _interpolation(boxes: Tensor, axis: int, bins: Bins, extent: int) -> Tensor:
    """Return ``(N, P, extent)``: how much each cell along an axis counts in the mean of each bin."""
    positions, counts = sample_positions(boxes, axis, bins)
    cells = torch.arange(extent, dtype=boxes.dtype, device=boxes.device)
    weights = boxes.new_zeros(*positions.shape[:2], extent)
    for sample in positions.unbind(-1):
        # A tent of width one around each sample is bilinear interpolation.
        tent = (1 - (sample.clamp(0, extent - 1)[..., None] - cells).abs()).clamp(min=0)
        weights += torch.where(((sample >= -1) & (sample <= extent))[..., None], tent, 0)
    return weights / counts.clamp(min=1)[:, None, None]


def _chunks(boxes: Tensor, images: int, row_elements: int) -> Iterator[tuple[int, Tensor]]:
    """Yield an image and the indices of some of its RoIs, few enough for an intermediate result of rows."""
    size = max(1, CHUNK_ELEMENTS // max(row_elements, 1))
    for image in range(images):
        members = (boxes[:, 0] == image).nonzero()[:, 0]
        for chunk in members.split(size):
            if len(chunk):
                yield image, chunk


def _pool_torch(maps: Tensor, pooled: Tensor, boxes: Tensor, bins: Bins, backward: bool) -> None:
    """Fill ``pooled (N, C, P, Q)`` with the mean of each bin of ``maps (B, C, H, W)`` for RoIs ``(N, 5)``.

    ``backward``, ``pooled`` is the gradient there, and what it makes of the maps' is added to ``maps``.
    """
    images, channels, height, width = maps.shape
    for image, chunk in _chunks(boxes, images, bins.aligned_height * channels * width):
        vertical = _interpolation(boxes[chunk], 1, bins, height).flatten(0, 1)
        horizontal = _interpolation(boxes[chunk], 0, bins, width)
        if backward:
            rows = pooled[chunk].transpose(1, 2).flatten(1, 2) @ horizontal
            cells = vertical.T @ rows.view(len(vertical), channels * width)
            maps[image] += cells.view(height, channels, width).transpose(0, 1)
        else:
            rows = vertical @ maps[image].transpose(0, 1).flatten(1)
            means = rows.view(len(chunk), -1, width) @ horizontal.transpose(1, 2)
            pooled[chunk] = means.view(len(chunk), bins.aligned_height, channels, -1).transpose(1, 2)


@compiled
def _axis(positions: Array, extent: int) -> Axis:
    """Return what :func:`_interpolation` does, and where it is not zero, of sample positions ``(N, P, G)``."""
    boxes, bins, samples = positions.shape
    weights, ranges = np.zeros((boxes, bins, extent), positions.dtype), np.zeros((boxes, bins, 2), np.int64)
    for box in range(boxes):
        for p in range(bins):
            count, first, end, own = 0, extent, 0, weights[box, p]
            for i in range(samples):
                position = positions[box, p, i]
                count += not np.isnan(position)
                if position >= -1 and position <= extent:
                    position = min(max(position, 0), extent - 1)
                    low = int(position)
                    high = min(low + 1, extent - 1)
                    own[low] += 1 - (position - low)
                    own[high] += position - low
                    first, end = min(first, low), max(end, high + 1)
            own[first:end] /= max(count, 1)
            ranges[box, p] = first, max(first, end)
    return weights, ranges


@compiled
def _pool_block(
    maps: Array, pooled: Array, backward: bool, image: int, first: int, members: Array, rows: Axis, columns: Axis
) -> None:
    """Do what :func:`_pool_torch` does, for the RoIs ``members`` of an image and the block of channels at ``first``.

    Here ``maps`` is ``(B, H, W, C)``.
    """
    block = slice(first, min(first + CHANNEL_BLOCK, maps.shape[3]))
    means = np.empty((pooled.shape[2], pooled.shape[3], block.stop - first), maps.dtype)
    for box in members:
        if backward:
            means[:] = pooled[box, block].transpose(1, 2, 0)
        else:
            means[:] = 0
        for p in range(means.shape[0]):
            for q in range(means.shape[1]):
                mean = means[p, q]
                for y in range(rows[1][box, p, 0], rows[1][box, p, 1]):
                    for x in range(columns[1][box, q, 0], columns[1][box, q, 1]):
                        weight = rows[0][box, p, y] * columns[0][box, q, x]
                        cell = maps[image, y, x, block]
                        source, target = (mean, cell) if backward else (cell, mean)
                        for c in range(mean.size):
                            target[c] += weight * source[c]
        if not backward:
            pooled[box, block] = means.transpose(2, 0, 1)


def _pool_numba(maps: Tensor, pooled: Tensor, boxes: Tensor, bins: Bins, backward: bool) -> None:
    """Do what :func:`_pool_torch` does, each image and block of channels on a thread."""
    images, channels, *extents = maps.shape
    axes = [_axis(sample_positions(boxes, 1 - i, bins)[0].numpy(), extents[i]) for i in range(2)]
    members = [np.flatnonzero(boxes[:, 0].long().numpy() == image) for image in range(images)]
    blocks = product(range(images), range(0, channels, CHANNEL_BLOCK))
    some = ((image, first, members[image], *axes) for image, first in blocks if members[image].size)
    pixels = maps.contiguous(memory_format=torch.channels_last)
    arguments = pixels.permute(0, 2, 3, 1).numpy(), pooled.numpy(), backward
    map_threads(lambda block: _pool_block(*arguments, *block), some)
    if backward:
        maps.copy_(pixels)
