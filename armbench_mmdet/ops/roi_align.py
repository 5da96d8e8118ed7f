"""RoIAlign of bin means: the weights of cells, the dispatch to a backend, and the backends in torch and in numba."""

from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from armbench_mmdet.errors import InputError
from armbench_mmdet.jit import compiled, map_threads
from armbench_mmdet.ops.backend import choose_backend, wide

AVERAGE = 1
"""The extension's number for pooling means; maxima, 0, are not provided."""

CHUNK_ELEMENTS = 2**25
"""Elements of an intermediate result in torch: 128 MB in single precision."""

CHANNEL_BLOCK = 32
"""Channels of a task in numba: enough for wide registers, few enough that the block's map stays in the cache."""

Array = NDArray[Any]
Axis = tuple[Array, Array]
"""How much each cell along an axis counts in each bin, ``(N, P, cells)``; a bin's first cell and its last plus one.

A bin without cells has an empty range: the number of cells, and 0.
"""


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


def _check(rois: Tensor, images: int, aligned: bool, pool_mode: int) -> None:
    """Refuse maxima, and RoIs that the compiled operator would answer with a crash or another image's memory."""
    if pool_mode != AVERAGE:
        raise InputError(
            "pool_mode must be 'avg', got 'max' (in roi_align); maxima are not provided without compiling mmcv"
        )
    rois = rois.detach().cpu()  # in one copy: on a GPU each step of the check would cost as much as an RoIAlign
    valid = rois.isfinite().all(1) & (rois[:, 0] >= 0) & (rois[:, 0] < images)
    if aligned:
        valid &= (rois[:, 1:3] <= rois[:, 3:5]).all(1)
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
    _check(rois, input.shape[0], options['aligned'], pool_mode)
    _pool(input, output, rois, Bins(**options), backward=False)


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
    _pool(grad_input, grad_output.contiguous(), rois, Bins(**options), backward=True)


def _pool(maps: Tensor, pooled: Tensor, rois: Tensor, bins: Bins, backward: bool) -> None:
    """Fill ``pooled (N, C, P, Q)`` with the mean of each bin of ``maps (B, C, H, W)`` for RoIs ``(N, 5)``.

    ``backward``, ``pooled`` is the gradient there, and what it makes of the maps' is added to ``maps``.
    """
    if pooled.numel() == 0:
        return
    target = maps if backward else pooled
    maps, pooled = wide(maps), wide(pooled)
    boxes = rois.detach().to(maps.dtype)
    backend = choose_backend('roi_align', maps.device)
    if backend == 'torchvision':
        scale_and_bins = (bins.spatial_scale, bins.aligned_height, bins.aligned_width)
        sampling, own = (bins.sampling_ratio, bins.aligned), torch.ops.torchvision
        if backward:
            maps += own._roi_align_backward(pooled, boxes, *scale_and_bins, *maps.shape, *sampling)
        else:
            pooled.copy_(own.roi_align(maps, boxes, *scale_and_bins, *sampling))
    else:
        pool, on_cpu = _pool_numba if backend == 'numba' else _pool_torch, boxes.cpu()
        rows = _axis(on_cpu[:, 2], on_cpu[:, 4], bins.aligned_height, maps.shape[2], bins)
        columns = _axis(on_cpu[:, 1], on_cpu[:, 3], bins.aligned_width, maps.shape[3], bins)
        with torch.autocast(maps.device.type, enabled=False):
            pool(maps, pooled, boxes[:, 0].long(), (rows, columns), backward)
    written = maps if backward else pooled
    if written.dtype != target.dtype:
        target.copy_(written)


def _pool_torch(maps: Tensor, pooled: Tensor, image_of: Tensor, axes: tuple[Axis, Axis], backward: bool) -> None:
    """Do what :func:`_pool` does, of the images ``(N,)`` that RoIs lie in and of their axes."""
    rows_of, columns_of = (torch.from_numpy(weights).to(maps.device) for weights, _ in axes)
    size = max(1, CHUNK_ELEMENTS // (pooled.shape[2] * maps.shape[1] * max(maps.shape[2:])))
    for image in range(len(maps)):
        for chunk in (image_of == image).nonzero().squeeze(1).split(size):
            rows, columns = rows_of[chunk], columns_of[chunk]
            if backward:
                maps[image] += torch.einsum('npy,ncpq,nqx->cyx', rows, pooled[chunk], columns)
            else:
                pooled[chunk] = torch.einsum('npy,cyx,nqx->ncpq', rows, maps[image], columns)


def _axis(low: Tensor, high: Tensor, pooled: int, extent: int, bins: Bins) -> Axis:
    """Return how much each of ``extent`` cells counts in the mean of each of ``pooled`` bins.

    In the precision of the sides ``(N,)`` of boxes, px, as in the compiled operator: it decides how many samples a bin
    has.
    """
    scale = float(np.float32(bins.spatial_scale))
    shift = 0.5 if bins.aligned else 0.0
    start = low * scale - shift
    size = high * scale - shift - start
    bin_size = (size if bins.aligned else size.clamp(min=1)) / pooled
    counts = bin_size.ceil() if bins.sampling_ratio <= 0 else torch.full_like(bin_size, bins.sampling_ratio)
    return _weights(start.numpy(), bin_size.numpy(), counts.long().numpy(), pooled, extent)


@compiled
def _weights(starts: Array, bin_sizes: Array, counts: Array, pooled: int, extent: int) -> Axis:
    """Return an axis, of where boxes start, the size of a bin and its samples, ``(N,)``, in cells."""
    weights = np.zeros((starts.size, pooled, extent), starts.dtype)
    ranges = np.zeros((starts.size, pooled, 2), np.int64)
    for box in range(starts.size):
        for p in range(pooled):
            first, end, own = extent, 0, weights[box, p]
            for i in range(counts[box]):
                position = starts[box] + (p + (i + 0.5) / counts[box]) * bin_sizes[box]
                if position >= -1 and position <= extent:
                    position = min(max(position, 0.0), extent - 1.0)
                    low = int(position)
                    high = min(low + 1, extent - 1)
                    own[low] += 1 - (position - low)
                    own[high] += position - low
                    first, end = min(first, low), max(end, high + 1)
            for cell in range(first, end):
                own[cell] /= max(counts[box], 1)
            ranges[box, p, 0], ranges[box, p, 1] = first, end
    return weights, ranges


@compiled
def _pool_block(maps: Array, pooled: Array, image: int, first: int, members: Array, rows: Axis, columns: Axis) -> None:
    """Fill ``pooled`` for the RoIs ``members`` of an image and the block of channels at ``first``.

    Here ``maps`` is ``(B, H, W, C)``.
    """
    mean = np.empty(min(CHANNEL_BLOCK, maps.shape[3] - first), maps.dtype)
    for box in members:
        for p in range(pooled.shape[2]):
            for q in range(pooled.shape[3]):
                for c in range(mean.size):  # loops: numba takes seconds to compile the assignment of an array
                    mean[c] = 0
                for y in range(rows[1][box, p, 0], rows[1][box, p, 1]):
                    for x in range(columns[1][box, q, 0], columns[1][box, q, 1]):
                        weight = rows[0][box, p, y] * columns[0][box, q, x]
                        cell = maps[image, y, x, first : first + mean.size]
                        for c in range(mean.size):
                            mean[c] += weight * cell[c]
                for c in range(mean.size):
                    pooled[box, first + c, p, q] = mean[c]


@compiled
def _add_block(maps: Array, pooled: Array, image: int, first: int, members: Array, rows: Axis, columns: Axis) -> None:
    """Add to ``maps (B, C, H, W)`` what the gradient ``pooled`` makes of it, for RoIs and channels as above.

    A row of bins becomes a row of cells, which is added to each row of cells that the bins are means of.
    """
    row = np.empty(maps.shape[3], maps.dtype)
    for channel in range(first, min(first + CHANNEL_BLOCK, maps.shape[1])):
        for box in members:
            left, right = maps.shape[3], 0
            for q in range(pooled.shape[3]):
                left, right = min(left, columns[1][box, q, 0]), max(right, columns[1][box, q, 1])
            for p in range(pooled.shape[2]):
                span = row[left:right]
                for x in range(span.size):
                    span[x] = 0
                for q in range(pooled.shape[3]):
                    for x in range(columns[1][box, q, 0], columns[1][box, q, 1]):
                        row[x] += columns[0][box, q, x] * pooled[box, channel, p, q]
                for y in range(rows[1][box, p, 0], rows[1][box, p, 1]):
                    weight, cells = rows[0][box, p, y], maps[image, channel, y, left:right]
                    for x in range(span.size):
                        cells[x] += weight * span[x]


def _pool_numba(maps: Tensor, pooled: Tensor, image_of: Tensor, axes: tuple[Axis, Axis], backward: bool) -> None:
    """Do what :func:`_pool_torch` does, each image and block of channels on a thread."""
    members = [np.flatnonzero(image_of.numpy() == image) for image in range(len(maps))]
    blocks = product(range(len(maps)), range(0, maps.shape[1], CHANNEL_BLOCK))
    some = ((image, first, members[image], *axes) for image, first in blocks if members[image].size)
    # Means lie where each channel of a cell is side by side, gradients where the cells of a row are.
    grid = maps if backward else maps.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    kernel, arguments = _add_block if backward else _pool_block, (grid.numpy(), pooled.numpy())
    map_threads(lambda block: kernel(*arguments, *block), some)
