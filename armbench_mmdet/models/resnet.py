"""ResNet whose fixed batch norms are part of its convolutions."""

from typing import Any

import torch
from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import Bottleneck
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@MODELS.register_module()
class FoldedResNet(ResNet):
    """mmdet's :class:`ResNet`, of the same weights and outputs, in less time and memory.

    A batch norm with fixed statistics, as detectors train and predict with it, is part of the convolution before it:
    the weights are folded, and gradients go through them to those of both (Tune-Mode ConvBN, arXiv 2305.11624).
    Predictions on a CPU are made pixel by pixel, see :func:`pixel_by_pixel`, from here on to the last convolution, and
    so are frozen stages in training.

    Args:
        **kwargs: As for the stock backbone, without ``plugins`` and ``deep_stem``.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The feature maps of the stages in ``out_indices``, see the stock."""
        frozen = -1 if x.requires_grad else self.frozen_stages  # the last stage without gradients; 0 is the stem
        is_training = torch.is_grad_enabled()
        found = []
        for stage in range(1 + len(self.res_layers)):
            with torch.set_grad_enabled(is_training and stage > frozen):
                x = self._stage(stage, x)
            if stage == frozen and is_training and x.device.type == 'cpu':
                x = x.contiguous()  # for the gradients of what follows, see pixel_by_pixel
            if stage - 1 in self.out_indices:
                found.append(x)
        return tuple(found)

    def _stage(self, stage: int, x: Tensor) -> Tensor:
        if stage == 0:
            return self.maxpool(self.relu(convolved(self.conv1, self.norm1, pixel_by_pixel(x))))
        for block in getattr(self, self.res_layers[stage - 1]):
            is_checkpointed = block.with_cp and x.requires_grad
            x = checkpoint(block_output, block, x, use_reentrant=False) if is_checkpointed else block_output(block, x)
        return x


def block_output(block: Any, x: Tensor) -> Tensor:
    """What a stock block of two or three convolutions makes of a feature map."""
    out = x
    for number in (1, 2, 3)[: 3 if isinstance(block, Bottleneck) else 2]:
        out = out if number == 1 else block.relu(out)
        out = convolved(getattr(block, f'conv{number}'), getattr(block, f'norm{number}'), out)
    if block.downsample is not None:
        *pool, conv, norm = block.downsample
        x = convolved(conv, norm, nn.Sequential(*pool)(x))
    out += x
    return block.relu(out)


def convolved(conv: Any, norm: Any, image: Tensor) -> Tensor:
    """A convolution and its batch norm, in one pass where the norm's statistics are fixed."""
    is_fixed = isinstance(norm, nn.modules.batchnorm._BatchNorm) and not norm.training
    if not is_fixed:
        return norm(conv(image))
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = conv.weight * scale[:, None, None, None]
    return conv._conv_forward(image, weight, norm.bias - norm.running_mean * scale)  # no public name takes weights


def pixel_by_pixel(image: Tensor) -> Tensor:
    """An image or feature map ``(B, C, H, W)``, on a CPU and without gradients with a pixel's channels side by side.

    It saves convolutions two copies each; but gradients in oneDNN may take longer for it, see docs/speed.md.
    """
    is_faster = image.device.type == 'cpu' and not torch.is_grad_enabled()
    return image.contiguous(memory_format=torch.channels_last) if is_faster else image
