"""RoIAlign (arXiv 1703.06870, section 3) with the calling convention of mmcv's extension."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from armbench_mmdet.errors import InputError
from armbench_mmdet.ops.backend import choose_backend
from armbench_mmdet.ops.roi_samples import Bins

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
    return name, None if name == 'torchvision' else importlib.import_module(f'armbench_mmdet.ops.roi_align_{name}')


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
