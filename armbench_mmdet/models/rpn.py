"""RPN head whose gradients are computed at its sampled anchors alone."""

from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import RPNHead
from mmdet.registry import MODELS
from torch import Tensor, nn

from armbench_mmdet.models.resnet import pixel_by_pixel


@MODELS.register_module()
class SparseRPNHead(RPNHead):
    """mmdet's :class:`RPNHead`, of the same weights, outputs and gradients, with faster training on a CPU.

    The loss samples 256 anchors an image; the gradient is zero at all others. The stock computes it there, too: on a
    full-size image at some 70,000 places, an eighth of the whole model's training step.

    Args:
        **kwargs: As for the stock head.
    """

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores ``(B, A, H, W)`` and box deltas ``(B, 4 * A, H, W)`` of one level's features ``(B, C, H, W)``."""
        is_stock = x.device.type != 'cpu' or not torch.is_grad_enabled() or not isinstance(self.rpn_conv, nn.Conv2d)
        if is_stock:
            return super().forward_single(x)
        layers = (self.rpn_conv, self.rpn_cls, self.rpn_reg)
        return _SparseGradients.apply(x, *(tensor for layer in layers for tensor in (layer.weight, layer.bias)))


class _SparseGradients(torch.autograd.Function):
    """The head's three convolutions; backward they are linear layers over the places that have a gradient."""

    @staticmethod
    @torch.amp.custom_fwd(device_type='cpu')
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, *weights)
        weight, bias, *outputs = weights
        hidden = F.conv2d(pixel_by_pixel(x), weight, bias, padding=1).relu_()
        scores, deltas = (F.conv2d(hidden, outputs[i], outputs[i + 1]).contiguous() for i in (0, 2))
        return scores, deltas

    @staticmethod
    @torch.amp.custom_bwd(device_type='cpu')
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        x, *weights = ctx.saved_tensors
        image, row, column = torch.where(torch.cat(gradients, 1).ne(0).any(1))
        steps = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2))
        rows, columns = row[:, None] + steps[:, 0], column[:, None] + steps[:, 1]
        is_inside = ((rows >= 0) & (rows < x.shape[2]) & (columns >= 0) & (columns < x.shape[3]))[..., None]
        cells = image[:, None].expand_as(rows), rows.clamp(0, x.shape[2] - 1), columns.clamp(0, x.shape[3] - 1)
        leaves = [(x.movedim(1, 3)[cells] * is_inside), *(one.detach() for one in weights)]
        with torch.enable_grad():
            patches, weight, bias, *outputs = (leaf.requires_grad_() for leaf in leaves)
            hidden = F.linear(patches.flatten(1), weight.movedim(1, 3).flatten(1), bias).relu()
            found = [F.linear(hidden, outputs[i].flatten(1), outputs[i + 1]) for i in (0, 2)]
        at_places = [gradient.movedim(1, 3)[image, row, column] for gradient in gradients]
        of_patches, *of_weights = torch.autograd.grad(found, leaves, at_places)
        of_x = torch.zeros(x.shape, dtype=x.dtype)
        of_x.movedim(1, 3).index_put_(cells, of_patches * is_inside, accumulate=True)
        return of_x, *of_weights
