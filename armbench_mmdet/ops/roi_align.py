"""RoIAlign of bin means: sample positions, the dispatch to a backend, and the backends in torch and in numba."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from armbench_mmdet.errors import InputError
from armbench_mmdet.jit import compiled, run_tasks
from armbench_mmdet.ops.backend import choose_backend

AVERAGE = 1
"""The extension's number for pooling means; maxima, 0, are not provided."""

CHUNK_ELEMENTS = 2**25
"""Elements of an intermediate result in torch: 128 MB in single precision."""

CHANNEL_BLOCK = 32
"""Channels of a task in numba: enough for wide registers, few enough that the block's map stays in the cache."""

Array = NDArray[Any]
Samples = tuple[Array, Array, Array]
"""Along one axis: positions ``(N, P, G)``, the cells before and after ``(N, P, G, 2) int64``, and those cells' weights.

A position is NaN where a bin has fewer samples than others; both weights are 0 outside the map.
"""
Four = tuple[Any, Any, Any, Any]


class Bins(NamedTuple):
    """How an RoI is divided and sampled."""

    height: int
    width: int
    spatial_scale: float
    """Feature cells per pixel."""
    sampling_ratio: int
    """Samples per bin and axis; 0 for as many as the bin has cells, rounded up."""
    aligned: bool
    """Shift positions by half a cell, and accept RoIs smaller than one cell."""


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
    pooled = bins.width if axis == 0 else bins.height
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


def inside(positions: Tensor, extent: int) -> Tensor:
    """Return which positions are interpolated at all; up to one cell beyond the map is, NaN is not."""
    return (positions >= -1) & (positions <= extent)


def corners(positions: Tensor, extent: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the cell before each position, the cell after it, and the weight of each; weight 0 outside the map."""
    clamped = positions.nan_to_num().clamp(min=0)
    low = clamped.long().clamp(max=extent - 1)
    high = (low + 1).clamp(max=extent - 1)
    fraction = torch.where(low < extent - 1, clamped - low, 0)
    counts = inside(positions, extent)
    return low, high, torch.where(counts, 1 - fraction, 0), torch.where(counts, fraction, 0)


def _wide(tensor: Tensor) -> Tensor:
    """Return a contiguous tensor in single precision or better."""
    return (tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()).contiguous()


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
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill in the pooled features of every RoI.

    Args:
        input: ``(B, C, H, W)``; half precision is computed in single precision.
        rois: ``(N, 5)``, image index and x1 y1 x2 y2 in pixels of the input image.
        output: Overwritten; ``(N, C, aligned_height, aligned_width)``.
        argmax_y: Of no effect: where maxima lie.
        argmax_x: Likewise.
        aligned_height: Bins per RoI, vertically.
        aligned_width: Bins per RoI, horizontally.
        spatial_scale: Feature cells per pixel.
        sampling_ratio: Samples per bin and axis, 0 for as many as the bin has cells.
        pool_mode: 1, for the mean of a bin's samples.
        aligned: Whether cell centres lie at half-integers, as they do.

    Raises:
        InputError: An RoI is not finite, of no image, or has a negative size while ``aligned``; or the mode is not 1.
    """
    _check(rois, input.shape[0], aligned, pool_mode)
    if output.numel() == 0:
        return
    features = _wide(input.detach())
    boxes = rois.detach().to(features.dtype)
    backend = choose_backend('roi_align', features.device)
    if backend == 'torchvision':
        options = (spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned)
        output.copy_(torch.ops.torchvision.roi_align(features, boxes, *options))
        return
    bins = Bins(aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
    forward = _forward_numba if backend == 'numba' else _forward_torch
    with _wide_target(output) as target, torch.autocast(features.device.type, enabled=False):
        forward(features, boxes, bins, target)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient at the features; there is none at the RoIs.

    Args:
        grad_output: ``(N, C, aligned_height, aligned_width)``.
        rois: As in the forward pass, like the maxima and the options.
        argmax_y: Of no effect.
        argmax_x: Of no effect.
        grad_input: Added to; ``(B, C, H, W)``.
        aligned_height: As in the forward pass.
        aligned_width: As in the forward pass.
        spatial_scale: As in the forward pass.
        sampling_ratio: As in the forward pass.
        pool_mode: As in the forward pass.
        aligned: As in the forward pass.
    """
    if grad_output.numel() == 0:
        return
    gradient = _wide(grad_output.detach())
    boxes = rois.detach().to(gradient.dtype)
    backend = choose_backend('roi_align', gradient.device)
    if backend == 'torchvision':
        options = (spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio, aligned)
        grad_input.add_(torch.ops.torchvision._roi_align_backward(gradient, boxes, *options))
        return
    bins = Bins(aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
    backward = _backward_numba if backend == 'numba' else _backward_torch
    with _wide_target(grad_input) as target, torch.autocast(gradient.device.type, enabled=False):
        backward(gradient, boxes, bins, target)


def _interpolation(boxes: Tensor, axis: int, bins: Bins, extent: int) -> Tensor:
    """Return ``(N, P, extent)``: how much each cell along an axis counts in the mean of each bin."""
    positions, counts = sample_positions(boxes, axis, bins)
    cells = torch.arange(extent, dtype=boxes.dtype, device=boxes.device)
    weights = boxes.new_zeros(*positions.shape[:2], extent)
    for sample in positions.unbind(-1):
        # A tent of width one around each sample is bilinear interpolation.
        tent = (1 - (sample.clamp(0, extent - 1)[..., None] - cells).abs()).clamp(min=0)
        weights += torch.where(inside(sample, extent)[..., None], tent, 0)
    return weights / counts.clamp(min=1)[:, None, None]


def _chunks(boxes: Tensor, images: int, row_elements: int) -> Iterator[tuple[int, Tensor]]:
    """Yield an image and the indices of some of its RoIs, few enough for an intermediate result of rows."""
    size = max(1, CHUNK_ELEMENTS // max(row_elements, 1))
    for image in range(images):
        members = (boxes[:, 0] == image).nonzero()[:, 0]
        for chunk in members.split(size):
            if len(chunk):
                yield image, chunk


def _forward_torch(features: Tensor, boxes: Tensor, bins: Bins, output: Tensor) -> None:
    """Fill in the mean of each bin, ``(N, C, P, Q)``, of features ``(B, C, H, W)`` for RoIs ``(N, 5)``."""
    images, channels, height, width = features.shape
    for image, chunk in _chunks(boxes, images, bins.height * channels * width):
        vertical = _interpolation(boxes[chunk], 1, bins, height)
        horizontal = _interpolation(boxes[chunk], 0, bins, width)
        rows = vertical.flatten(0, 1) @ features[image].transpose(0, 1).flatten(1)
        rows = rows.view(len(chunk), bins.height * channels, width)
        pooled = rows @ horizontal.transpose(1, 2)
        output[chunk] = pooled.view(len(chunk), bins.height, channels, bins.width).transpose(1, 2)


def _backward_torch(gradient: Tensor, boxes: Tensor, bins: Bins, result: Tensor) -> None:
    """Add to ``(B, C, H, W)`` the gradient at the features, for ``(N, C, P, Q)`` at the output."""
    images, channels, height, width = result.shape
    for image, chunk in _chunks(boxes, images, bins.height * channels * width):
        vertical = _interpolation(boxes[chunk], 1, bins, height)
        horizontal = _interpolation(boxes[chunk], 0, bins, width)
        rows = gradient[chunk].transpose(1, 2).flatten(1, 2) @ horizontal
        rows = rows.view(len(chunk) * bins.height, channels * width)
        cells = vertical.flatten(0, 1).T @ rows
        result[image] += cells.view(height, channels, width).transpose(0, 1)


@compiled
def _neighbours(
    rows: Samples, columns: Samples, box: int, p: int, q: int, i: int, j: int, width: int
) -> tuple[Four, Four]:
    """Return the four cells around sample ``(i, j)`` of bin ``(p, q)``, in row-major order, and their weights."""
    top, bottom = rows[1][box, p, i, 0] * width, rows[1][box, p, i, 1] * width
    left, right = columns[1][box, q, j, 0], columns[1][box, q, j, 1]
    above, below = rows[2][box, p, i, 0], rows[2][box, p, i, 1]
    before, after = columns[2][box, q, j, 0], columns[2][box, q, j, 1]
    cells = (top + left, top + right, bottom + left, bottom + right)
    return cells, (above * before, above * after, below * before, below * after)


@compiled
def _counts(samples: Samples, box: int) -> int:
    """Return the samples per bin along one axis."""
    return np.sum(~np.isnan(samples[0][box, 0]))


@compiled
def _extent(samples: Samples, box: int) -> tuple[int, int]:
    """Return the first cell, and the last plus one, that an RoI needs along one axis."""
    _, cells, weights = samples
    first, end = np.iinfo(np.int64).max, 0
    for p in range(cells.shape[1]):
        for i in range(cells.shape[2]):
            if weights[box, p, i, 0] + weights[box, p, i, 1] > 0:
                first = min(first, cells[box, p, i, 0])
                end = max(end, cells[box, p, i, 1] + 1)
    return first, end


@compiled
def _spans(members: Array, rows: Samples, columns: Samples, height: int, width: int) -> Array:
    """Return ``(H, 2) int64``: the first column, and the last plus one, that the RoIs need of each row."""
    spans = np.zeros((height, 2), np.int64)
    spans[:, 0] = width
    for box in members:
        top, bottom = _extent(rows, box)
        left, right = _extent(columns, box)
        for row in range(top, bottom):
            spans[row, 0] = min(spans[row, 0], left)
            spans[row, 1] = max(spans[row, 1], right)
    return spans


@compiled
def _average_block(
    features: Array, image: int, first: int, members: Array, rows: Samples, columns: Samples, output: Array
) -> None:
    """Fill in ``output (N, C, P, Q)`` for the RoIs ``members`` of an image and the block of channels at ``first``."""
    _, channels, height, width = features.shape
    _, _, bin_rows, bin_columns = output.shape
    block = min(CHANNEL_BLOCK, channels - first)
    plane = np.empty((height * width, block), features.dtype)
    spans = _spans(members, rows, columns, height, width)
    for y in range(height):
        for x in range(spans[y, 0], spans[y, 1]):
            for c in range(block):
                plane[y * width + x, c] = features[image, first + c, y, x]
    pooled = np.empty((bin_rows, bin_columns, block), features.dtype)
    for box in members:
        pooled[:] = 0
        for p in range(bin_rows):
            for q in range(bin_columns):
                total = pooled[p, q]
                for i in range(rows[0].shape[2]):
                    for j in range(columns[0].shape[2]):
                        (a, b, d, e), (wa, wb, wd, we) = _neighbours(rows, columns, box, p, q, i, j, width)
                        if not wa + wb + wd + we > 0:
                            continue
                        for c in range(block):
                            total[c] += wa * plane[a, c] + wb * plane[b, c] + wd * plane[d, c] + we * plane[e, c]
        count = features.dtype.type(max(_counts(rows, box) * _counts(columns, box), 1))
        for c in range(block):
            for p in range(bin_rows):
                for q in range(bin_columns):
                    output[box, first + c, p, q] = pooled[p, q, c] / count


@compiled
def _average_block_gradient(
    gradient: Array, image: int, first: int, members: Array, rows: Samples, columns: Samples, result: Array
) -> None:
    """Add to ``result (B, C, H, W)`` what ``gradient (N, C, P, Q)`` makes of it; see :func:`_average_block`."""
    _, channels, height, width = result.shape
    _, _, bin_rows, bin_columns = gradient.shape
    block = min(CHANNEL_BLOCK, channels - first)
    plane = np.zeros((height * width, block), gradient.dtype)
    pooled = np.empty((bin_rows, bin_columns, block), gradient.dtype)
    for box in members:
        for c in range(block):
            for p in range(bin_rows):
                for q in range(bin_columns):
                    pooled[p, q, c] = gradient[box, first + c, p, q]
        count = gradient.dtype.type(_counts(rows, box) * _counts(columns, box))
        for p in range(bin_rows):
            for q in range(bin_columns):
                share = pooled[p, q]
                for i in range(rows[0].shape[2]):
                    for j in range(columns[0].shape[2]):
                        (a, b, d, e), (wa, wb, wd, we) = _neighbours(rows, columns, box, p, q, i, j, width)
                        if not wa + wb + wd + we > 0:
                            continue
                        for c in range(block):
                            plane[a, c] += share[c] * wa / count
                            plane[b, c] += share[c] * wb / count
                            plane[d, c] += share[c] * wd / count
                            plane[e, c] += share[c] * we / count
    spans = _spans(members, rows, columns, height, width)
    for y in range(height):
        for x in range(spans[y, 0], spans[y, 1]):
            for c in range(block):
                result[image, first + c, y, x] += plane[y * width + x, c]


def _samples(boxes: Tensor, axis: int, bins: Bins, extent: int) -> Samples:
    """Return what the kernels need of one axis, 0 for x and 1 for y."""
    positions, _ = sample_positions(boxes, axis, bins)
    before, after, before_weight, after_weight = corners(positions, extent)
    cells, weights = torch.stack((before, after), -1), torch.stack((before_weight, after_weight), -1)
    return positions.numpy(), cells.numpy(), weights.numpy()


def _blocks(boxes: Tensor, images: int, channels: int) -> Iterator[tuple[int, int, Array]]:
    """Yield an image, the first channel of a block, and the indices of the image's RoIs, in order."""
    image_of_box = boxes[:, 0].long().numpy()
    for image in range(images):
        members = np.flatnonzero(image_of_box == image)
        if members.size:
            for first in range(0, channels, CHANNEL_BLOCK):
                yield image, first, members


def _forward_numba(features: Tensor, boxes: Tensor, bins: Bins, output: Tensor) -> None:
    """Fill in the mean of each bin, ``(N, C, P, Q)``, of features ``(B, C, H, W)`` for RoIs ``(N, 5)``."""
    images, channels, height, width = features.shape
    samples = (_samples(boxes, 1, bins, height), _samples(boxes, 0, bins, width))
    blocks = _blocks(boxes, images, channels)
    run_tasks(_average_block, ((features.numpy(), *block, *samples, output.numpy()) for block in blocks))


def _backward_numba(gradient: Tensor, boxes: Tensor, bins: Bins, result: Tensor) -> None:
    """Add to ``(B, C, H, W)`` the gradient at the features, for ``(N, C, P, Q)`` at the output."""
    images, channels, height, width = result.shape
    samples = (_samples(boxes, 1, bins, height), _samples(boxes, 0, bins, width))
    blocks = _blocks(boxes, images, channels)
    run_tasks(_average_block_gradient, ((gradient.numpy(), *block, *samples, result.numpy()) for block in blocks))
