"""RoIAlign on the CPU in numba."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from armbench_mmdet.jit import compiled, run_tasks
from armbench_mmdet.ops.roi_align import EMPTY_MAXIMUM, Bins, cells_around_maxima, corners, sample_positions

CHANNEL_BLOCK = 32
"""Channels of a task: enough for wide registers, few enough that the block's map stays in the cache."""

Array = NDArray[Any]
Samples = tuple[Array, Array, Array]
"""Along one axis: positions ``(N, P, G)``, the cells before and after ``(N, P, G, 2) int64``, and those cells' weights.

A position is NaN where a bin has fewer samples than others; both weights are 0 outside the map.
"""
Four = tuple[Any, Any, Any, Any]


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
def average_block(
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
def average_block_gradient(
    gradient: Array, image: int, first: int, members: Array, rows: Samples, columns: Samples, result: Array
) -> None:
    """Add to ``result (B, C, H, W)`` what ``gradient (N, C, P, Q)`` makes of it; see :func:`average_block`."""
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


@compiled
def max_channels(
    features: Array,
    first: int,
    end: int,
    images: Array,
    rows: Samples,
    columns: Samples,
    output: Array,
    at_y: Array,
    at_x: Array,
) -> None:
    """Fill in the largest sample of each bin, and where it lies, for a range of channels; all ``(N, C, P, Q)``."""
    width = features.shape[3]
    for box in range(output.shape[0]):
        for c in range(first, end):
            plane = features[images[box], c].ravel()
            for p in range(output.shape[2]):
                for q in range(output.shape[3]):
                    for i in range(_counts(rows, box)):
                        for j in range(_counts(columns, box)):
                            (a, b, d, e), (wa, wb, wd, we) = _neighbours(rows, columns, box, p, q, i, j, width)
                            sample = wa * plane[a] + wb * plane[b] + wd * plane[d] + we * plane[e]
                            if sample > output[box, c, p, q]:
                                output[box, c, p, q] = sample
                                at_y[box, c, p, q] = rows[0][box, p, i]
                                at_x[box, c, p, q] = columns[0][box, q, j]


@compiled
def max_channels_gradient(
    gradient: Array, first: int, end: int, images: Array, cells: Array, weights: Array, result: Array
) -> None:
    """Add to ``result (B, C, H * W)``, for a range of channels, what goes to the cells around each maximum.

    Args:
        gradient: ``(N, C, S)``, for S bins.
        first: First channel.
        end: Last channel plus one.
        images: ``(N,) int64``, the image of each RoI.
        cells: ``(N, C, S, 4) int64``.
        weights: ``(N, C, S, 4)``.
        result: Sums are added here.
    """
    for box in range(gradient.shape[0]):
        for c in range(first, end):
            for index in range(gradient.shape[2]):
                for corner in range(4):
                    share = gradient[box, c, index] * weights[box, c, index, corner]
                    result[images[box], c, cells[box, c, index, corner]] += share


def _samples(boxes: Tensor, axis: int, bins: Bins, extent: int) -> Samples:
    """Return what the kernels need of one axis, 0 for x and 1 for y."""
    positions, _ = sample_positions(boxes, axis, bins)
    before, after, before_weight, after_weight = corners(positions, extent)
    cells, weights = torch.stack((before, after), -1), torch.stack((before_weight, after_weight), -1)
    return positions.numpy(), cells.numpy(), weights.numpy()


def _image_of_box(boxes: Tensor) -> Array:
    return boxes[:, 0].long().numpy()


def _blocks(boxes: Tensor, images: int, channels: int) -> Iterator[tuple[int, int, Array]]:
    """Yield an image, the first channel of a block, and the indices of the image's RoIs, in order."""
    image_of_box = _image_of_box(boxes)
    for image in range(images):
        members = np.flatnonzero(image_of_box == image)
        if members.size:
            for first in range(0, channels, CHANNEL_BLOCK):
                yield image, first, members


def _channel_ranges(channels: int) -> list[tuple[int, int]]:
    return [(first, min(first + CHANNEL_BLOCK, channels)) for first in range(0, channels, CHANNEL_BLOCK)]


def forward_average(features: Tensor, boxes: Tensor, bins: Bins, output: Tensor) -> None:
    """Fill in the mean of each bin, ``(N, C, P, Q)``, of features ``(B, C, H, W)`` for RoIs ``(N, 5)``."""
    images, channels, height, width = features.shape
    samples = (_samples(boxes, 1, bins, height), _samples(boxes, 0, bins, width))
    blocks = _blocks(boxes, images, channels)
    run_tasks(average_block, ((features.numpy(), *block, *samples, output.numpy()) for block in blocks))


def backward_average(gradient: Tensor, boxes: Tensor, bins: Bins, result: Tensor) -> None:
    """Add to ``(B, C, H, W)`` the gradient at the features, for ``(N, C, P, Q)`` at the output."""
    images, channels, height, width = result.shape
    samples = (_samples(boxes, 1, bins, height), _samples(boxes, 0, bins, width))
    blocks = _blocks(boxes, images, channels)
    run_tasks(average_block_gradient, ((gradient.numpy(), *block, *samples, result.numpy()) for block in blocks))


def forward_max(features: Tensor, boxes: Tensor, bins: Bins, outputs: tuple[Tensor, Tensor, Tensor]) -> None:
    """Fill in the largest sample of each bin and where it lies, y and x, three times ``(N, C, P, Q)``."""
    _, channels, height, width = features.shape
    for output, start in zip(outputs, (EMPTY_MAXIMUM, -1, -1), strict=True):
        output.fill_(start)
    samples = (_samples(boxes, 1, bins, height), _samples(boxes, 0, bins, width))
    fixed = (_image_of_box(boxes), *samples, *(output.numpy() for output in outputs))
    run_tasks(max_channels, ((features.numpy(), *span, *fixed) for span in _channel_ranges(channels)))


def backward_max(gradient: Tensor, boxes: Tensor, at_y: Tensor, at_x: Tensor, result: Tensor) -> None:
    """Add to ``(B, C, H, W)`` the gradient at the features, for ``(N, C, P, Q)`` at the output and at the maxima."""
    _, channels, height, width = result.shape
    cells, weights = (tensor.flatten(2, 3).numpy() for tensor in cells_around_maxima(at_y, at_x, height, width))
    fixed = (_image_of_box(boxes), cells, weights, result.flatten(2).numpy())
    run_tasks(max_channels_gradient, ((gradient.flatten(2).numpy(), *s, *fixed) for s in _channel_ranges(channels)))
