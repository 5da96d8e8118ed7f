"""RoIAlign on the CPU, by kernels that numba compiles."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from armbench_mmdet.ops.jit import run_tasks
from armbench_mmdet.ops.roi_align_kernels import (
    CHANNEL_BLOCK,
    Array,
    Samples,
    average_block,
    average_block_gradient,
    max_channels,
    max_channels_gradient,
)
from armbench_mmdet.ops.roi_samples import EMPTY_MAXIMUM, Bins, cells_around_maxima, corners, sample_positions


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
