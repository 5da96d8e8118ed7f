"""Mask2Former's prediction with fixed shapes: mmdet's own parts around a pixel decoder that can be traced."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Mask2FormerGraph(nn.Module):
    """From an input tensor to the best queries, as ``Mask2Former.predict`` finds them before it makes full-size masks.

    Args:
        model: mmdet's Mask2Former with an instance head.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = copy.copy(model)
        self.model._modules = dict(model._modules)
        head = copy.copy(model.panoptic_head)
        head._modules = dict(head._modules, pixel_decoder=PixelDecoderGraph(head.pixel_decoder))
        self.model.panoptic_head = head

    def forward(self, pixels: Tensor, height: int, width: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Predict one image.

        Args:
            pixels: ``(1, 3, H, W)``, normalised and padded.
            height: Of the image without padding; of no effect here, masks are cut where they are made full-size.
            width: Of it.

        Returns:
            ``scores`` ``(K,)`` of the class alone, falling, ``labels`` ``(K,)``, ``count``, and ``masks``
            ``(K, h, w)``, logits of the padded input. And stages on the way.
        """
        features = self.model.extract_feat(pixels)
        all_classes, all_masks = self.model.panoptic_head(features, None)
        chances = all_classes[-1][0].softmax(-1)[:, :-1]
        limit = self.model.panoptic_fusion_head.test_cfg.get('max_per_image', 100)
        scores, best = chances.flatten().topk(limit)
        classes = chances.shape[1]
        masks = all_masks[-1][0][best // classes]
        count = (scores > 0).sum()
        outputs = {'scores': scores, 'labels': best % classes, 'count': count, 'masks': masks}
        return outputs, {'features': features[0], 'class logits': all_classes[-1], 'mask logits': all_masks[-1]}


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
        reference = torch.cat(points)[None, :, None, None, None]
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
    """Mmcv's ``MultiScaleDeformableAttention`` of a sequence on itself, ``(1, N, C)``; points are ``(1, N, …, 2)``."""
    heads, levels, points = module.num_heads, module.num_levels, module.num_points
    asked = query + position
    count = query.shape[1]
    offsets = module.sampling_offsets(asked).view(1, count, heads, levels, points, 2)
    weights = module.attention_weights(asked).view(count, heads, levels * points).softmax(-1).permute(1, 0, 2)
    value = module.value_proj(query)[0].T.reshape(heads, -1, count)
    sizes = torch.tensor([[width, height] for height, width in shapes], dtype=query.dtype)
    grids = (2 * (reference + offsets / sizes[:, None]) - 1)[0].permute(1, 2, 0, 3, 4)  # (M, L, N, P, 2)
    samples = []
    for level, (part, shape) in enumerate(zip(value.split([h * w for h, w in shapes], 2), shapes, strict=True)):
        maps = part.reshape(heads, -1, *shape)
        samples.append(F.grid_sample(maps, grids[:, level], padding_mode='zeros', align_corners=False))
    attended = (torch.cat(samples, -1) * weights[:, None]).sum(-1)  # (M, D, N)
    return module.output_proj(attended.reshape(1, -1, count).transpose(1, 2)) + query
