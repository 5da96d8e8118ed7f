"""RoIAlign in plain torch, for any device.

The mean over a bin is separable: ``vertical @ features @ horizontal.T`` per RoI, with one interpolation matrix per
axis. Matrix products also make the gradient, in an order that is the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from armbench_mmdet.ops.roi_samples import EMPTY_MAXIMUM, Bins, cells_around_maxima, corners, inside, sample_positions

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
