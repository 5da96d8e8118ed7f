"""Multi-scale deformable attention with the calling convention of mmcv's extension, on any device."""

from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from armbench_mmdet.jit import compiled, map_threads
from armbench_mmdet.ops.backend import choose_backend, wide

Array = NDArray[Any]


class Sampled(NamedTuple):
    """Arguments of :func:`ms_deform_attn_forward`, tensors or arrays of them, in at least single precision."""

    value: Any
    shapes: Any
    starts: Any
    locations: Any
    weights: Any


def _attend(sampled: Sampled) -> Tensor:
    """Sum bilinear samples of every level, times their weights."""
    value, shapes, starts, locations, weights = sampled
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    # Fold the heads into the batch: each head looks at its own channels only. Queries come last: sums over the few
    # points, were they last, would take most of the time on a CPU.
    grids = (2 * locations - 1).permute(0, 2, 3, 4, 1, 5).flatten(0, 1)  # (B * M, L, P, Q, 2)
    shares = weights.permute(0, 2, 3, 4, 1).flatten(0, 1)  # (B * M, L, P, Q)
    total = value.new_zeros(batch * heads, channels, queries)
    for level, ((height, width), start) in enumerate(zip(shapes.tolist(), starts.tolist(), strict=True)):
        features = value[:, start : start + height * width].permute(0, 2, 3, 1)
        features = features.reshape(batch * heads, channels, height, width)
        samples = F.grid_sample(features, grids[:, level], padding_mode='zeros', align_corners=False)
        total = total + (samples * shares[:, level, None]).sum(-2)
    return total.view(batch, heads * channels, queries).transpose(1, 2).contiguous()


@compiled
def _corners(location: Array, height: int, width: int, cells: Array, factors: Array) -> bool:
    """Find what a sample is made of.

    Args:
        location: ``(2,)``, x and y as fractions of the map.
        height: Of the map, in cells.
        width: Of it.
        cells: Overwritten; the four cells around the sample, counted row by row, any for one outside the map.
        factors: Overwritten, ``(3, 4)``: how much each counts, and how much more a cell further in x, and in y.

    Returns:
        Whether any of them is inside.
    """
    x, y = location[0] * width - 0.5, location[1] * height - 0.5
    if not (x > -1 and y > -1 and x < width and y < height):
        return False
    left, top = int(np.floor(x)), int(np.floor(y))
    across, down = x - left, y - top
    for i in range(4):
        is_right, is_low = i % 2, i // 2
        column, row = left + is_right, top + is_low
        inside = column >= 0 and column < width and row >= 0 and row < height
        share_x, share_y = across if is_right else 1 - across, down if is_low else 1 - down
        cells[i] = row * width + column if inside else 0
        factors[0, i] = share_x * share_y if inside else 0
        factors[1, i] = (2 * is_right - 1) * share_y if inside else 0
        factors[2, i] = (2 * is_low - 1) * share_x if inside else 0
    return True


@partial(compiled, fastmath={'reassoc', 'contract'})
def _dot(a: Array, b: Array) -> Any:
    total = a[0] * b[0]
    for i in range(1, a.size):
        total += a[i] * b[i]
    return total


@compiled
def _attend_head(
    sampled: Sampled, output: Array, gradients: tuple[Array, Array, Array], backward: bool, image: int, head: int
) -> None:
    """Do what :func:`_attend` does, for one head in one image: add to ``output (B, Q, M, D)``.

    ``backward``, ``output`` is the gradient there, and what it makes of those of value, locations and weights is added.
    """
    value, shapes, starts, locations, weights = sampled
    grad_value, grad_locations, grad_weights = gradients
    queries, _, levels, points = weights.shape[1:]
    cells, factors = np.zeros(4, np.int64), np.zeros((3, 4), value.dtype)
    for query in range(queries):
        own = output[image, query, head]
        for level in range(levels):
            height, width, start = shapes[level, 0], shapes[level, 1], starts[level]
            for point in range(points):
                place = image, query, head, level, point
                if not _corners(locations[place], height, width, cells, factors):
                    continue
                weight = weights[place]
                for corner in range(4):
                    share, cell = weight * factors[0, corner], start + cells[corner]
                    source, target = value[image, cell, head], own
                    if backward:
                        product, slope = _dot(own, source), grad_locations[place]
                        slope[0] += weight * factors[1, corner] * product * width
                        slope[1] += weight * factors[2, corner] * product * height
                        grad_weights[place] += factors[0, corner] * product
                        source, target = own, grad_value[image, cell, head]
                    for i in range(target.size):
                        target[i] += share * source[i]


def _sampled(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Sampled:
    return Sampled(wide(value), shapes.cpu(), starts.cpu(), wide(locations), wide(weights))


def _on_threads(sampled: Sampled, output: Tensor, gradients: tuple[Tensor, ...] | None) -> None:
    """Attend, or with gradients add to them, each head of each image on a thread: no two write to the same place."""
    arrays = Sampled(*(tensor.contiguous().numpy() for tensor in sampled))
    inputs = arrays.value, arrays.locations, arrays.weights
    targets = inputs if gradients is None else tuple(tensor.numpy() for tensor in gradients)
    arguments = arrays, output.numpy(), targets, gradients is not None
    heads = product(range(arrays.value.shape[0]), range(arrays.value.shape[2]))
    map_threads(lambda head: _attend_head(*arguments, *head), heads)


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int = 64,
) -> Tensor:
    """Attend to sampled points of several feature maps (Deformable DETR, arXiv 2010.04159, equation 3).

    Args:
        value: ``(B, K, M, D)``, the keys of all levels one after the other, for M heads of D channels.
        spatial_shapes: ``(L, 2) int64``, height and width of each level.
        level_start_index: ``(L,) int64``, the first key of each level.
        sampling_locations: ``(B, Q, M, L, P, 2)``, x and y as fractions of the map; samples outside it are zero.
        attention_weights: ``(B, Q, M, L, P)``.
        im2col_step: Images per launch of the compiled kernel; of no effect here.

    Returns:
        ``(B, Q, M * D)`` in the dtype of ``value``.
    """
    sampled = _sampled(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    if choose_backend('ms_deform_attn', value.device) == 'numba':
        output = sampled.value.new_zeros(*sampling_locations.shape[:3], value.shape[3])
        _on_threads(sampled, output, None)
        return output.flatten(2).to(value.dtype)
    with torch.no_grad(), torch.autocast(value.device.type, enabled=False):
        return _attend(sampled).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int = 64,
) -> None:
    """Fill in the gradients of :func:`ms_deform_attn_forward`.

    In torch the forward pass is computed again: the extension's convention has no place for its intermediate results.
    Arguments are those of the forward pass, the gradient at the output, and one tensor to overwrite for each gradient.
    """
    sampled = _sampled(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    inputs, gradient = (sampled.value, sampled.locations, sampled.weights), wide(grad_output).contiguous()
    if choose_backend('ms_deform_attn', value.device) == 'numba':
        gradients = tuple(torch.zeros_like(tensor, memory_format=torch.contiguous_format) for tensor in inputs)
        _on_threads(sampled, gradient.view(*sampling_locations.shape[:3], value.shape[3]), gradients)
    else:
        with torch.enable_grad(), torch.autocast(value.device.type, enabled=False):
            for tensor in inputs:
                tensor.requires_grad_()
            output = _attend(sampled)
        gradients = torch.autograd.grad(output, inputs, gradient)
    for target, computed in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        target.copy_(computed)
