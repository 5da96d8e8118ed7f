"""Multi-scale deformable attention with the calling convention of mmcv's extension, on any device."""

from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from armbench_mmdet.errors import InputError
from armbench_mmdet.jit import compiled, map_threads
from armbench_mmdet.ops.backend import choose_backend

Array = NDArray[Any]


def _attend(value: Tensor, shapes: list[list[int]], starts: list[int], locations: Tensor, weights: Tensor) -> Tensor:
    """Sum bilinear samples of every level, times their weights; shapes as in :func:`ms_deform_attn_forward`."""
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    # Fold the heads into the batch: each head looks at its own channels only. Queries come last: sums over the few
    # points, were they last, would take most of the time on a CPU.
    grids = (2 * locations - 1).permute(0, 2, 3, 4, 1, 5).flatten(0, 1)  # (B * M, L, P, Q, 2)
    shares = weights.permute(0, 2, 3, 4, 1).flatten(0, 1)  # (B * M, L, P, Q)
    total = value.new_zeros(batch * heads, channels, queries)
    for level, ((height, width), start) in enumerate(zip(shapes, starts, strict=True)):
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


@compiled
def _attend_head(
    value: Array, shapes: Array, starts: Array, locations: Array, weights: Array, output: Array, image: int, head: int
) -> None:
    """Do what :func:`_attend` does, for one head in one image; ``output`` is ``(B, Q, M, D)``."""
    queries, _, levels, points = weights.shape[1:]
    cells, factors = np.zeros(4, np.int64), np.zeros((3, 4), value.dtype)
    for query in range(queries):
        total = output[image, query, head]
        total[:] = 0
        for level in range(levels):
            start = starts[level]
            for point in range(points):
                location = locations[image, query, head, level, point]
                if not _corners(location, shapes[level, 0], shapes[level, 1], cells, factors):
                    continue
                weight = weights[image, query, head, level, point]
                a, b, c, d = (
                    weight * factors[0, 0],
                    weight * factors[0, 1],
                    weight * factors[0, 2],
                    weight * factors[0, 3],
                )
                first, second = value[image, start + cells[0], head], value[image, start + cells[1], head]
                third, fourth = value[image, start + cells[2], head], value[image, start + cells[3], head]
                for i in range(total.size):
                    total[i] += a * first[i] + b * second[i] + c * third[i] + d * fourth[i]


@partial(compiled, fastmath={'reassoc', 'contract'})
def _dot(a: Array, b: Array) -> Any:
    total = a[0] * b[0]
    for i in range(1, a.size):
        total += a[i] * b[i]
    return total


@compiled
def _head_gradients(
    value: Array,
    shapes: Array,
    starts: Array,
    locations: Array,
    weights: Array,
    gradient: Array,
    grad_value: Array,
    grad_locations: Array,
    grad_weights: Array,
    image: int,
    head: int,
) -> None:
    """Add to the gradients of :func:`_attend_head`, for ``gradient (B, Q, M, D)`` at its output."""
    queries, _, levels, points = weights.shape[1:]
    cells, factors = np.zeros(4, np.int64), np.zeros((3, 4), value.dtype)
    for query in range(queries):
        own = gradient[image, query, head]
        for level in range(levels):
            height, width, start = shapes[level, 0], shapes[level, 1], starts[level]
            for point in range(points):
                if not _corners(locations[image, query, head, level, point], height, width, cells, factors):
                    continue
                weight = weights[image, query, head, level, point]
                for corner in range(4):
                    share = weight * factors[0, corner]
                    cell = start + cells[corner]
                    product = _dot(own, value[image, cell, head])
                    grad_weights[image, query, head, level, point] += factors[0, corner] * product
                    grad_locations[image, query, head, level, point, 0] += weight * factors[1, corner] * product * width
                    grad_locations[image, query, head, level, point, 1] += (
                        weight * factors[2, corner] * product * height
                    )
                    target = grad_value[image, cell, head]
                    for i in range(target.size):
                        target[i] += share * own[i]


def _levels(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor) -> tuple[list[list[int]], list[int]]:
    """Return ``(height, width)`` and first key of each level, checked against the number of keys."""
    shapes, starts = spatial_shapes.tolist(), level_start_index.tolist()
    keys = value.shape[1]
    if len(shapes) != len(starts) or any(s < 0 or s + h * w > keys for (h, w), s in zip(shapes, starts, strict=False)):
        raise InputError(
            f'spatial_shapes and level_start_index must lie within the {keys} keys of value, '
            f'got {shapes!r} and {starts!r} (in ms_deform_attn)'
        )
    return shapes, starts


def _wide(tensor: Tensor) -> Tensor:
    """Return a tensor in at least single precision: positions within a map need more bits than half has."""
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).detach()


def _on_threads(kernel: Any, tensors: tuple[Tensor, ...], shapes: Any, starts: Any, *targets: Tensor) -> None:
    """Run a kernel, each head of each image on a thread: of these, no two write to the same place."""
    value, *others = (tensor.contiguous().numpy() for tensor in tensors)
    sizes = np.array(shapes, np.int64).reshape(-1, 2), np.array(starts, np.int64)
    arguments = (value, *sizes, *others, *(target.numpy() for target in targets))
    map_threads(lambda task: kernel(*arguments, *task), product(range(value.shape[0]), range(value.shape[2])))


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

    Raises:
        InputError: The levels do not fit the keys.
    """
    shapes, starts = _levels(value, spatial_shapes, level_start_index)
    tensors = _wide(value), _wide(sampling_locations), _wide(attention_weights)
    if choose_backend('ms_deform_attn', value.device) == 'numba':
        output = tensors[0].new_empty(*sampling_locations.shape[:3], value.shape[3])
        _on_threads(_attend_head, tensors, shapes, starts, output)
        return output.flatten(2).to(value.dtype)
    with torch.no_grad(), torch.autocast(value.device.type, enabled=False):
        return _attend(tensors[0], shapes, starts, *tensors[1:]).to(value.dtype)


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

    Raises:
        InputError: The levels do not fit the keys.
    """
    shapes, starts = _levels(value, spatial_shapes, level_start_index)
    inputs, gradient = [_wide(t) for t in (value, sampling_locations, attention_weights)], _wide(grad_output)
    if choose_backend('ms_deform_attn', value.device) == 'numba':
        gradients = tuple(torch.zeros_like(tensor, memory_format=torch.contiguous_format) for tensor in inputs)
        heads = gradient.view(*sampling_locations.shape[:3], value.shape[3])
        _on_threads(_head_gradients, (*inputs, heads), shapes, starts, *gradients)
    else:
        with torch.enable_grad(), torch.autocast(value.device.type, enabled=False):
            inputs = [tensor.requires_grad_() for tensor in inputs]
            output = _attend(inputs[0], shapes, starts, inputs[1], inputs[2])
        gradients = torch.autograd.grad(output, inputs, gradient)
    for target, computed in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        target.copy_(computed)
