"""ResNet whose fixed batch norms are part of its convolutions."""

from typing import Any

import torch
from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@MODELS.register_module()
class FoldedResNet(ResNet):
    """mmdet's :class:`ResNet`, of the same weights and outputs, in less time and memory.

    A batch norm with fixed statistics, as detectors train and predict with it, is part of the convolution before it:
    the weights are folded, and gradients go through them to those of both (Tune-Mode ConvBN, arXiv 2305.11624).
    Predictions on a CPU are made pixel by pixel, see :func:`pixel_by_pixel`, from here on to the last convolution.

    Args:
        **kwargs: As for the stock backbone, without ``plugins`` and ``deep_stem``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The feature maps of the stages in ``out_indices``, see the stock."""
        x = self.maxpool(self.relu(convolved(self.conv1, self.norm1, pixel_by_pixel(x))))
        found = []
        for index, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if index in self.out_indices:
                found.append(x)
        return tuple(found)


class FoldedBlock(nn.Module):
    """What a block of two or three convolutions does; mixed into the stock's, which has its parts."""

    relu: nn.Module
    downsample: nn.Sequential | None
    with_cp: bool

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, see the stock."""
        if self.with_cp and x.requires_grad:
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        out = x
        for number in (1, 2, 3)[: 3 if isinstance(self, Bottleneck) else 2]:
            out = out if number == 1 else self.relu(out)
            out = convolved(getattr(self, f'conv{number}'), getattr(self, f'norm{number}'), out)
        if self.downsample is not None:
            *pool, conv, norm = self.downsample
            x = convolved(conv, norm, nn.Sequential(*pool)(x))
        out += x
        return self.relu(out)


class FoldedBasicBlock(FoldedBlock, BasicBlock):
    """Of two convolutions."""


class FoldedBottleneck(FoldedBlock, Bottleneck):
    """Of three."""


FoldedResNet.arch_settings = {
    depth: (FoldedBasicBlock if depth < 50 else FoldedBottleneck, counts)
    for depth, (_, counts) in ResNet.arch_settings.items()
}


def convolved(conv: Any, norm: Any, image: Tensor) -> Tensor:
    """A convolution and its batch norm, in one pass where the norm's statistics are fixed."""
    is_fixed = isinstance(norm, nn.modules.batchnorm._BatchNorm) and not norm.training
    if not is_fixed:
        return norm(conv(image))
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = conv.weight * scale[:, None, None, None]
    return conv._conv_forward(image, weight, norm.bias - norm.running_mean * scale)  # no public name takes weights


def pixel_by_pixel(image: Tensor) -> Tensor:
    """An image or feature map ``(B, C, H, W)``, for a prediction on a CPU with the channels of a pixel side by side.

    It saves convolutions two copies each; but oneDNN's gradients take twice as long for it.
    """
    is_faster = image.device.type == 'cpu' and not torch.is_grad_enabled()
    return image.contiguous(memory_format=torch.channels_last) if is_faster else image
