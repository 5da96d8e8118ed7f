"""RoIAlign: sample positions, the dispatch to a backend, and the backend in plain torch."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from armbench_mmdet.errors import InputError
from armbench_mmdet.ops.backend import choose_backend

EMPTY_MAXIMUM = -10000.0
"""What the maximum over no sample is, in the compiled operator; a maximum starts from here."""


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


def cells_around_maxima(at_y: Tensor, at_x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the cells that made each maximum, as indices into a channel's map, and their weights.

    A maximum at y = -1 is none at all, as in the compiled operator.

    Args:
        at_y: ``(N, C, P, Q)``, in cells, like the next.
        at_x: As ``at_y``.
        height: Of the map, in cells, like the next.
        width: As ``height``.

    Returns:
        ``(N, C, P, Q, 4) int64`` and ``(N, C, P, Q, 4)``, in row-major order of the cells.
    """
    top, bottom, above, below = corners(torch.where(at_y == -1, torch.nan, at_y), height)
    left, right, before, after = corners(at_x, width)
    cells = [row * width + column for row in (top, bottom) for column in (left, right)]
    weights = [row * column for row in (above, below) for column in (before, after)]
    return torch.stack(cells, -1), torch.stack(weights, -1)


MAX, AVERAGE = 0, 1


def _wide(tensor: Tensor) -> Tensor:
    """Return a contiguous tensor in single precision or better."""
    return (tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()).contiguous()


@contextmanager
def _wide_targets(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Lend tensors to write to in :func:`_wide`'s form; what is written ends up in the given ones."""
    targets = tuple(_wide(tensor) for tensor in tensors)
    yield targets
    for tensor, target in zip(tensors, targets, strict=True):
        if target is not tensor:
            tensor.copy_(target)


def _check(rois: Tensor, images: int, aligned: bool) -> None:
    """Refuse RoIs that the compiled operator would answer with a crash or another image's memory."""
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


def _backend(operator: str, tensor: Tensor) -> tuple[str, Any]:
    """Return the backend's name and, unless it is torchvision, its module."""
    name = choose_backend(operator, tensor.device)
    if name == 'torchvision':
        return name, None
    return name, importlib.import_module(f'armbench_mmdet.ops.roi_align{"_numba" * (name == "numba")}')


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
        argmax_y: Overwritten when pooling maxima: where each lies, in cells; shaped as ``output``.
        argmax_x: Likewise.
        aligned_height: Bins per RoI, vertically.
        aligned_width: Bins per RoI, horizontally.
        spatial_scale: Feature cells per pixel.
        sampling_ratio: Samples per bin and axis, 0 for as many as the bin has cells.
        pool_mode: 0 for the maximum of a bin's samples, 1 for their mean.
        aligned: Whether cell centres lie at half-integers, as they do.

    Raises:
        InputError: An RoI is not finite, of no image, or has a negative size while ``aligned``.
    """
    bins = Bins(aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
    _check(rois, input.shape[0], aligned)
    if output.numel() == 0:
        return
    features = _wide(input.detach())
    boxes = rois.detach().to(features.dtype)
    name, backend = _backend('roi_align' if pool_mode == AVERAGE else 'roi_align_max', features)
    if pool_mode == MAX:
        with _wide_targets(output, argmax_y, argmax_x) as targets:
            backend.forward_max(features, boxes, bins, targets)
    elif name == 'torchvision':
        options = (spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned)
        output.copy_(torch.ops.torchvision.roi_align(features, boxes, *options))
    else:
        with _wide_targets(output) as (target,), torch.autocast(features.device.type, enabled=False):
            backend.forward_average(features, boxes, bins, target)


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
        rois: ``(N, 5)``, as in the forward pass, like the options.
        argmax_y: What the forward pass left there.
        argmax_x: Likewise.
        grad_input: Added to; ``(B, C, H, W)``.
        aligned_height: Bins per RoI, vertically.
        aligned_width: Bins per RoI, horizontally.
        spatial_scale: Feature cells per pixel.
        sampling_ratio: Samples per bin and axis, 0 for as many as the bin has cells.
        pool_mode: 0 for the maximum of a bin's samples, 1 for their mean.
        aligned: Whether cell centres lie at half-integers.
    """
    bins = Bins(aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
    if grad_output.numel() == 0:
        return
    gradient = _wide(grad_output.detach())
    boxes = rois.detach().to(gradient.dtype)
    name, backend = _backend('roi_align' if pool_mode == AVERAGE else 'roi_align_max', gradient)
    if pool_mode == MAX:
        with _wide_targets(grad_input) as (target,):
            backend.backward_max(gradient, boxes, _wide(argmax_y), _wide(argmax_x), target)
    elif name == 'torchvision':
        options = (spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio, aligned)
        grad_input.add_(torch.ops.torchvision._roi_align_backward(gradient, boxes, *options))
    else:
        with _wide_targets(grad_input) as (target,), torch.autocast(gradient.device.type, enabled=False):
            backend.backward_average(gradient, boxes, bins, target)


CHUNK_ELEMENTS = 2**25
"""Elements of an intermediate result: 128 MB in single precision."""


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


def forward_average(features: Tensor, boxes: Tensor, bins: Bins, output: Tensor) -> None:
    """Fill in the mean of each bin, ``(N, C, P, Q)``, of features ``(B, C, H, W)`` for RoIs ``(N, 5)``."""
    images, channels, height, width = features.shape
    for image, chunk in _chunks(boxes, images, bins.height * channels * width):
        vertical = _interpolation(boxes[chunk], 1, bins, height)
        horizontal = _interpolation(boxes[chunk], 0, bins, width)
        rows = vertical.flatten(0, 1) @ features[image].transpose(0, 1).flatten(1)
        rows = rows.view(len(chunk), bins.height * channels, width)
        pooled = rows @ horizontal.transpose(1, 2)
        output[chunk] = pooled.view(len(chunk), bins.height, channels, bins.width).transpose(1, 2)


def backward_average(gradient: Tensor, boxes: Tensor, bins: Bins, result: Tensor) -> None:
    """Add to ``(B, C, H, W)`` the gradient at the features, for ``(N, C, P, Q)`` at the output."""
    images, channels, height, width = result.shape
    for image, chunk in _chunks(boxes, images, bins.height * channels * width):
        vertical = _interpolation(boxes[chunk], 1, bins, height)
        horizontal = _interpolation(boxes[chunk], 0, bins, width)
        rows = gradient[chunk].transpose(1, 2).flatten(1, 2) @ horizontal
        rows = rows.view(len(chunk) * bins.height, channels * width)
        cells = vertical.flatten(0, 1).T @ rows
        result[image] += cells.view(height, channels, width).transpose(0, 1)


def forward_max(features: Tensor, boxes: Tensor, bins: Bins, outputs: tuple[Tensor, Tensor, Tensor]) -> None:
    """Fill in the largest sample of each bin and where it lies, y and x, three times ``(N, C, P, Q)``."""
    images, channels, height, width = features.shape
    for image, chunk in _chunks(boxes, images, channels * bins.height * bins.width):
        ys, xs = (sample_positions(boxes[chunk], axis, bins)[0] for axis in (1, 0))
        shape = (len(chunk), channels, bins.height, bins.width)
        value, at_y, at_x = (features.new_full(shape, start) for start in (EMPTY_MAXIMUM, -1, -1))
        for y in ys.unbind(-1):
            top, bottom, above, below = (t[:, :, None] for t in corners(y, height))
            for x in xs.unbind(-1):
                left, right, before, after = (t[:, None, :] for t in corners(x, width))
                sample = above * before * features[image][:, top, left]
                sample = sample + above * after * features[image][:, top, right]
                sample = sample + below * before * features[image][:, bottom, left]
                sample = (sample + below * after * features[image][:, bottom, right]).transpose(0, 1)
                exists = ~(y[:, None, :, None].isnan() | x[:, None, None, :].isnan())
                better = exists & (sample > value)
                value = torch.where(better, sample, value)
                at_y = torch.where(better, y[:, None, :, None], at_y)
                at_x = torch.where(better, x[:, None, None, :], at_x)
        for output, result in zip(outputs, (value, at_y, at_x), strict=True):
            output[chunk] = result


def backward_max(gradient: Tensor, boxes: Tensor, at_y: Tensor, at_x: Tensor, result: Tensor) -> None:
    """Add to ``(B, C, H, W)`` the gradient at the features, for ``(N, C, P, Q)`` at the output and at the maxima.

    On CUDA the order of summation varies from run to run unless torch is told to use deterministic algorithms.
    """
    _, channels, height, width = result.shape
    cells, weights = cells_around_maxima(at_y, at_x, height, width)
    planes = boxes[:, 0].long()[:, None] * channels + torch.arange(channels, device=boxes.device)
    cells += planes[:, :, None, None, None] * (height * width)
    result.view(-1).index_add_(0, cells.flatten(), (gradient[..., None] * weights).flatten())
