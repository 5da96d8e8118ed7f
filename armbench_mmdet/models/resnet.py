"""ResNet whose fixed batch norms are part of its convolutions."""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import torch
from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import Bottleneck
from mmdet.registry import MODELS
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

Convolve = Callable[[Tensor], Tensor]
"""What a convolution and its norm do."""


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
            if stage - 1 in self.out_indices:
                found.append(x)
            if stage == frozen and is_training and x.device.type == 'cpu':
                x = x.contiguous()  # for the gradients of the next stages, see pixel_by_pixel
        return tuple(found)

    def _stage(self, stage: int, x: Tensor) -> Tensor:
        if stage == 0:
            (convolve,) = folded([(self.conv1, self.norm1)])
            return self.maxpool(self.relu(convolve(pixel_by_pixel(x))))
        blocks = list(getattr(self, self.res_layers[stage - 1]))
        layers = [layers_of(block) for block in blocks]
        steps = iter(folded([layer for own in layers for layer in own]))
        for block, own in zip(blocks, layers, strict=True):
            arguments = block, x, list(islice(steps, len(own)))
            if block.with_cp and x.requires_grad:
                x = checkpoint(block_output, *arguments, use_reentrant=False)
            else:
                x = block_output(*arguments)
        return x


def layers_of(block: Any) -> list[tuple[Any, Any]]:
    """The convolutions of a stock block, each with its norm, that of the shortcut, where there is one, last."""
    numbers = range(1, 4 if isinstance(block, Bottleneck) else 3)
    layers = [(getattr(block, f'conv{number}'), getattr(block, f'norm{number}')) for number in numbers]
    return layers if block.downsample is None else [*layers, tuple(block.downsample[-2:])]


def block_output(block: Any, x: Tensor, steps: list[Convolve]) -> Tensor:
    """What a stock block makes of a feature map, by what its layers do."""
    out = x
    for number, step in enumerate(steps if block.downsample is None else steps[:-1]):
        out = step(block.relu(out) if number else out)
    if block.downsample is not None:
        x = steps[-1](block.downsample[:-2](x))
    out += x
    return block.relu(out)


def folded(layers: list[tuple[Any, Any]]) -> list[Convolve]:
    """What convolutions with batch norms do, each in one pass if the statistics of all norms are fixed.

    Their scales and biases are made at once: a GPU takes longer to start hundreds of small kernels than to run them.
    """
    norms = [norm for _, norm in layers]
    if not all(isinstance(norm, _BatchNorm) and not norm.training for norm in norms):
        return [partial(_one_after_the_other, *layer) for layer in layers]
    if torch.compiler.is_compiling() and len(layers) > 1:  # it fuses them itself, and no exporter folds a split
        return [step for layer in layers for step in folded([layer])]
    weights, biases, means, variances = (
        torch.cat([getattr(norm, name) for norm in norms]) for name in ('weight', 'bias', 'running_mean', 'running_var')
    )
    scales = weights * (variances + norms[0].eps).rsqrt()  # one norm_cfg, so one eps
    sizes = [norm.num_features for norm in norms]
    parts = zip(layers, scales.split(sizes), (biases - means * scales).split(sizes), strict=True)
    # No public name of a convolution takes weights.
    return [
        partial(conv._conv_forward, weight=conv.weight * scale[:, None, None, None], bias=bias)
        for (conv, _), scale, bias in parts
    ]


def _one_after_the_other(conv: Any, norm: Any, image: Tensor) -> Any:
    return norm(conv(image))


def pixel_by_pixel(image: Tensor) -> Tensor:
    """An image or feature map ``(B, C, H, W)``, on a CPU and without gradients with a pixel's channels side by side.

    It saves convolutions two copies each; but gradients in oneDNN may take longer for it, see docs/speed.md.
    """
    is_faster = image.device.type == 'cpu' and not torch.is_grad_enabled()
    return image.contiguous(memory_format=torch.channels_last) if is_faster else image
