"""Mask2Former's prediction with fixed shapes: mmdet's own parts around a pixel decoder that can be traced."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Mask2FormerGraph(nn.Module):
    """From an input tensor to the best queries, as ``Mask2Former.predict`` finds them before it makes full-size masks.

    Args:
        model: mmdet's Mask2Former with an instance head; its pixel decoder is replaced.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, head = model, model.panoptic_head
        head.pixel_decoder = PixelDecoderGraph(head.pixel_decoder)

    def forward(self, pixels: Tensor, height: int, width: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Predict one image.

        Args:
            pixels: ``(1, 3, H, W)``, normalised and padded.
            height: Of the image without padding; of no effect here, masks are cut where they are made full-size.
            width: Of it.

        Returns:
            ``scores`` ``(N,)`` of the class alone, falling, ``labels`` ``(N,)``, the ``queries`` ``(N,)`` that they
            are of, and ``masks`` ``(Q, h, w)`` of all queries, logits of the padded input. And stages on the way.
        """
        features = self.model.extract_feat(pixels)
        all_classes, all_masks = self.model.panoptic_head(features, None)
        chances = all_classes[-1][0].softmax(-1)[:, :-1]
        limit = self.model.panoptic_fusion_head.test_cfg.get('max_per_image', 100)
        scores, best = chances.flatten().topk(limit)
        classes = chances.shape[1]
        outputs = {'scores': scores, 'labels': best % classes, 'queries': best // classes, 'masks': all_masks[-1][0]}
        return outputs, {'features': features[0], 'class logits': all_classes[-1]}


class PixelDecoderGraph(nn.Module):
    """mmdet's ``MSDeformAttnPixelDecoder``, with sizes that stay numbers.

    Args:
        decoder: The pixel decoder.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The mask features and the multi-scale features, from low to high resolution.

        Args:
            features: The backbone's, from high to low resolution, ``(1, C, h, w)``.
        """
        own = self.decoder
        count = own.num_encoder_levels
        tokens, positions, points, shapes = [], [], [], []
        for i in range(count):
            level = own.num_input_levels - i - 1
            feature = features[level]
            height, width = feature.shape[-2:]
            nothing = feature.new_zeros((1, height, width), dtype=torch.bool)
            position = own.level_encoding.weight[i].view(1, -1, 1, 1) + own.postional_encoding(nothing)
            centres = own.point_generator.single_level_grid_priors((height, width), level, device=feature.device)
            stride = own.strides[level]
            points.append(centres / torch.tensor([width * stride, height * stride]))
            tokens.append(own.input_convs[i](feature).flatten(2).transpose(1, 2))
            positions.append(position.flatten(2).transpose(1, 2))
            shapes.append((height, width))
        memory, position = torch.cat(tokens, 1), torch.cat(positions, 1)
        reference = torch.cat(points)
        for layer in own.encoder.layers:
            memory = layer.norms[0](_deformable_attention(layer.self_attn, memory, position, reference, shapes))
            memory = layer.norms[1](layer.ffn(memory))
        maps = []
        for part, (height, width) in zip(memory.split([h * w for h, w in shapes], 1), shapes, strict=True):
            maps.append(part.transpose(1, 2).reshape(1, -1, height, width))
        for i in range(own.num_input_levels - count - 1, -1, -1):
            lateral = own.lateral_convs[i](features[i])
            above = F.interpolate(maps[-1], size=lateral.shape[-2:], mode='bilinear', align_corners=False)
            maps.append(own.output_convs[i](lateral + above))
        return own.mask_feature(maps[-1]), maps[: own.num_outs]


def _deformable_attention(
    module: Any, query: Tensor, position: Tensor, reference: Tensor, shapes: list[tuple[int, int]]
) -> Tensor:
    """Mmcv's ``MultiScaleDeformableAttention`` of a sequence on itself, ``(1, N, C)``; points are ``(N, 2)``.

    The four neighbours of each point are gathered from maps with a border of zeros: onnxruntime's ``GridSample`` takes
    several times as long.
    """
    heads, levels, points, count = module.num_heads, module.num_levels, module.num_points, query.shape[1]
    asked = (query + position)[0]
    weights = module.attention_weights(asked).view(count, heads, -1).softmax(-1)
    sizes = torch.tensor([[width, height] for height, width in shapes], dtype=query.dtype).repeat_interleave(points, 0)
    offsets = module.sampling_offsets(asked).view(count, heads, -1, 2)
    place = (offsets + (reference[:, None] * sizes - 0.5)[:, None]).clamp(min=-1).minimum(sizes)
    (x, y), (right_share, lower_share) = place.floor().long().unbind(-1), (place - place.floor()).unbind(-1)
    parts = module.value_proj(query)[0].split([height * width for height, width in shapes])
    grids = (part.view(*shape, -1) for part, shape in zip(parts, shapes, strict=True))
    maps = [F.pad(grid, (0, 0, 1, 2, 1, 2)).flatten(0, 1) for grid in grids]
    values = torch.cat(maps).view(-1, module.embed_dims // heads)
    bordered = (sizes + 3).long()
    areas = bordered.prod(1)[::points]
    first = (areas.cumsum(0) - areas).repeat_interleave(points) + bordered[:, 0] + 1
    rows = (y * bordered[:, 0] + x + first) * heads + torch.arange(heads)[:, None]
    attended: Any = 0
    for down, up_to_down in ((0, 1 - lower_share), (1, lower_share)):
        for right, left_to_right in ((0, 1 - right_share), (1, right_share)):
            places = (rows + (down * bordered[:, 0] + right) * heads).flatten()
            neighbours = values.index_select(0, places).view(count * heads, levels * points, -1)
            attended = attended + (left_to_right * (up_to_down * weights)).view(count * heads, 1, -1) @ neighbours
    return module.output_proj(attended.view(1, count, -1)) + query
