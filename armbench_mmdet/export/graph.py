"""The whole of a detector as one traceable module: from the pixels of an image to instances with small masks."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from armbench_mmdet.errors import InputError
from armbench_mmdet.export.mask2former import Mask2FormerGraph
from armbench_mmdet.export.mask_rcnn import MaskRCNNGraph

FAMILIES = {'MaskRCNN': MaskRCNNGraph, 'Mask2Former': Mask2FormerGraph}
PARTS = {
    'rpn_head': ('RPNHead',),
    'roi_head': ('StandardRoIHead',),
    'roi_head.bbox_head': ('Shared2FCBBoxHead', 'ConvFCBBoxHead'),
    'roi_head.mask_head': ('FCNMaskHead', 'RleFCNMaskHead'),
    'panoptic_head': ('Mask2FormerHead', 'StableMask2FormerHead'),
    'panoptic_head.pixel_decoder': ('MSDeformAttnPixelDecoder',),
}
"""Types of the parts whose prediction is written anew for tracing, and would be wrong for other types."""


class DetectorGraph(nn.Module):
    """Resizing, normalisation, padding and the network.

    Args:
        model: mmdet's Mask R-CNN or Mask2Former.
        network_size: Height and width to which an image is resized; None if it comes at the network's size.

    Raises:
        InputError: The model, or a part of it, is of another type.
    """

    def __init__(self, model: Any, network_size: tuple[int, int] | None) -> None:
        super().__init__()
        family = type(model).__name__
        if family not in FAMILIES:
            raise InputError(f'model.type must be one of {", ".join(FAMILIES)} to be exported, got {family!r}')
        for name, part in model.named_modules():
            if name in PARTS and (kind := type(part).__name__) not in PARTS[name]:
                raise InputError(f'model.{name}.type must be {" or ".join(PARTS[name])} to be exported, got {kind!r}')
        self.network = FAMILIES[family](model)
        self.preprocessor = model.data_preprocessor
        self.network_size = network_size

    def forward(self, image: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Predict one image.

        Args:
            image: ``(H, W, 3) uint8``, RGB.

        Returns:
            The outputs of the file: ``scores``, ``labels``, ``count``, ``masks`` and perhaps ``boxes``, in px of
            ``image``; and the stages on the way, in order, for a comparison.
        """
        height, width = self.network_size or image.shape[:2]
        pixels = resized(image, height, width) if self.network_size else image
        normal = self._normalised(pixels.permute(2, 0, 1))
        outputs, stages = self.network(normal[None], height, width)
        if 'boxes' in outputs and self.network_size:
            scale = torch.stack([torch.scalar_tensor(side) for side in (image.shape[1], image.shape[0])])
            outputs['boxes'] = outputs['boxes'] * (scale / torch.tensor([width, height])).repeat(2)
        return outputs, {'input': normal, **stages}

    def _normalised(self, pixels: Tensor) -> Tensor:
        own = self.preprocessor
        values = (pixels if own._channel_conversion else pixels.flip(0)).float()  # no public name says so
        if own._enable_normalize:
            values = (values - own.mean) / own.std
        divisor = own.pad_size_divisor
        return F.pad(values, (0, -values.shape[2] % divisor, 0, -values.shape[1] % divisor), value=own.pad_value)


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """An image ``(h, w, 3) uint8`` at another size: as :func:`armbench_runtime.images.resized`, bit for bit."""
    top, bottom, upper, lower = _taps(image.shape[0], height)
    left, right, before, after = _taps(image.shape[1], width)
    rows = torch.stack([image[top], image[bottom]]).float()
    across = ((rows[:, :, left] * before[:, None] + rows[:, :, right] * after[:, None]) / 16).floor()
    # More bits than single precision has; ONNX divides whole numbers as if they were single.
    parts = across.double() * torch.stack([upper, lower])[:, :, None, None] / (1 << 16)
    return ((parts.floor().sum(0).float() + 2) / 4).floor()


def _taps(cells: int, pixels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    scale = torch.scalar_tensor(cells, dtype=torch.float64) / pixels
    position = ((torch.arange(pixels, dtype=torch.float64) + 0.5) * scale - 0.5).float()
    low = position.floor()
    share = position - low
    before, after = ((part * 2048).round() for part in (1 - share, share))
    cell = low.long()
    return cell.clamp(0, cells - 1), (cell + 1).clamp(0, cells - 1), before, after
