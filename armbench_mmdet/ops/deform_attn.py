"""Multi-scale deformable attention with the calling convention of mmcv's extension, on any device."""

import torch
import torch.nn.functional as F
from torch import Tensor

from armbench_mmdet.errors import InputError


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
    return tensor if tensor.dtype == torch.float64 else tensor.float()


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
    with torch.no_grad(), torch.autocast(value.device.type, enabled=False):
        output = _attend(_wide(value), shapes, starts, _wide(sampling_locations), _wide(attention_weights))
    return output.to(value.dtype)


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

    The forward pass is computed again: the extension's convention has no place for its intermediate results. Arguments
    are those of the forward pass, the gradient at the output, and one tensor to overwrite for each gradient.

    Raises:
        InputError: The levels do not fit the keys.
    """
    shapes, starts = _levels(value, spatial_shapes, level_start_index)
    with torch.enable_grad(), torch.autocast(value.device.type, enabled=False):
        inputs = [_wide(t).detach().requires_grad_() for t in (value, sampling_locations, attention_weights)]
        output = _attend(inputs[0], shapes, starts, inputs[1], inputs[2])
    gradients = torch.autograd.grad(output, inputs, _wide(grad_output))
    for target, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        target.copy_(gradient)
