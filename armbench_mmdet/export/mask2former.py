"""Mask2Former's prediction with fixed shapes: mmdet's own parts, of which some are put in other words to be traced."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.layers import MSDeformAttnPixelDecoder
from torch import Tensor, nn

from armbench_mmdet.models.mask2former import StableMask2FormerHead
from armbench_mmdet.models.swin import SEPARATE, WindowAttention


def mask2former(model: Any, pixels: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """The best queries of an image, as ``Mask2Former.predict`` finds them before it makes full-size masks.

    Args and outputs are those of :func:`~armbench_mmdet.export.mask_rcnn.mask_rcnn`, with a model made traceable; the
    size is of no effect, masks are cut where they are made full-size.
    """
    head, features = model.panoptic_head, model.extract_feat(pixels)
    if isinstance(head, StableMask2FormerHead):  # the stock head makes the masks of all layers
        class_logits, masks = head.last_layer(features)
    else:
        class_logits, masks = (layers[-1] for layers in head(features, None))
    chances = class_logits[0].softmax(-1)[:, :-1]
    scores, best = chances.flatten().topk(model.panoptic_fusion_head.test_cfg.get('max_per_image', 100))
    classes = chances.shape[1]
    return {'scores': scores, 'labels': best % classes, 'queries': best // classes, 'masks': masks[0]}


def make_traceable(model: nn.Module) -> None:
    """Put what PyTorch cannot trace for any size in other words: windows, and the pixel decoder."""
    parts: list[Any] = list(model.modules())
    for part in parts:
        kind = type(part)
        if kind is WindowAttention:
            part.forward = functools.partial(_window_attention, part)
        elif kind is MSDeformAttnPixelDecoder:
            part.forward = functools.partial(_pixel_decoder, part)
        elif hasattr(part, 'adap_padding'):  # to even sizes, which the input has
            part.adap_padding = None


def _window_attention(own: Any, query: Tensor, hw_shape: tuple[int, int]) -> Tensor:
    """Attention within windows, as mmdet's ``ShiftWindowMSA`` computes it; ``query`` and result ``(1, H * W, C)``."""
    (height, width), window, shift = hw_shape, own.window, own.shift
    rows, columns = (height + window - 1) // window, (width + window - 1) // window

    def cut(image: Tensor) -> Tensor:
        return image.view(rows, window, columns, window, -1).transpose(1, 2).reshape(rows * columns, window**2, -1)

    border = 0, 0, 0, columns * window - width, 0, rows * window - height
    image = F.pad(query.view(height, width, -1), border).roll((-shift, -shift), (0, 1))
    # Within a window the shift has made places neighbours that it brought from the other side of the image.
    down, across = (torch.arange(count * window) >= count * window - shift for count in (rows, columns))
    side = cut(2 * down[:, None] + across)
    apart = SEPARATE * (side != side.transpose(1, 2)) if shift else None
    joined = own.w_msa(cut(image), apart).view(rows, columns, window, window, -1).transpose(1, 2)
    joined = joined.reshape(rows * window, columns * window, -1).roll((shift, shift), (0, 1))
    return joined[:height, :width].reshape(1, height * width, -1)


def _pixel_decoder(own: Any, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """``MSDeformAttnPixelDecoder`` with sizes that stay numbers, of features ``(1, C, h, w)`` from the finest on."""
    count = own.num_encoder_levels
    tokens, positions, points, shapes = [], [], [], []
    for i in range(count):
        level = own.num_input_levels - i - 1
        feature = features[level]
        height, width = feature.shape[-2:]
        nothing = feature.new_zeros((1, height, width), dtype=torch.bool)
        position = own.level_encoding.weight[i].view(1, -1, 1, 1) + own.postional_encoding(nothing)
        centres = own.point_generator.single_level_grid_priors((height, width), level, device=feature.device)
        points.append(centres / torch.tensor([width, height]) / own.strides[level])
        tokens.append(own.input_convs[i](feature).flatten(2).transpose(1, 2))
        positions.append(position.flatten(2).transpose(1, 2))
        shapes.append((height, width))
    memory, position, reference = torch.cat(tokens, 1), torch.cat(positions, 1), torch.cat(points)
    for layer in own.encoder.layers:
        memory = layer.norms[0](_deformable_attention(layer.self_attn, memory, position, reference, shapes))
        memory = layer.norms[1](layer.ffn(memory))
    parts = memory.split([height * width for height, width in shapes], 1)
    maps = [part.transpose(1, 2).reshape(1, -1, *shape) for part, shape in zip(parts, shapes, strict=True)]
    for i in range(own.num_input_levels - count - 1, -1, -1):
        lateral = own.lateral_convs[i](features[i])
        above = F.interpolate(maps[-1], size=lateral.shape[-2:], mode='bilinear', align_corners=False)
        maps.append(own.output_convs[i](lateral + above))
    return own.mask_feature(maps[-1]), maps[: own.num_outs]


def _deformable_attention(
    module: Any, query: Tensor, position: Tensor, reference: Tensor, shapes: list[tuple[int, int]]
) -> Tensor:
    """Mmcv's ``MultiScaleDeformableAttention`` of a sequence on itself, ``(1, N, C)``; points are ``(N, 2)``.

    The four neighbours of each point are gathered: onnxruntime's ``GridSample`` takes several times as long.
    """
    heads, samples, count = module.num_heads, module.num_levels * module.num_points, query.shape[1]
    asked = (query + position)[0]
    weights = module.attention_weights(asked).view(count, heads, samples).softmax(-1)
    offsets = module.sampling_offsets(asked).view(count, heads, samples, 2)
    values = module.value_proj(query).view(count * heads, -1)
    levels = torch.tensor([[width, height] for height, width in shapes])
    areas = levels.prod(1)
    first = (areas.cumsum(0) - areas).repeat_interleave(module.num_points)
    sizes = levels.repeat_interleave(module.num_points, 0)
    places = offsets + (reference[:, None] * sizes - 0.5)[:, None]
    (across, down), (width, height) = places.unbind(-1), sizes.unbind(1)
    attended: Any = 0
    for right, lower in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = across.floor() + right, down.floor() + lower
        share = (1 - (across - x).abs()) * (1 - (down - y).abs()) * weights
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        rows = torch.where(inside, y * width + x + first, 0).long() * heads + torch.arange(heads)[:, None]
        neighbours = values.index_select(0, rows.flatten()).view(count * heads, samples, -1)
        attended = attended + torch.where(inside, share, 0).view(count * heads, 1, samples) @ neighbours
    return module.output_proj(attended.view(1, count, -1)) + query
