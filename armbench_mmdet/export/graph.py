"""The whole of a detector as one traceable module: from the pixels of an image to instances with small masks."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from armbench_mmdet.errors import InputError
from armbench_mmdet.export.mask2former import Mask2FormerGraph
from armbench_mmdet.export.mask_rcnn import MaskRCNNGraph

FAMILIES = {'MaskRCNN': MaskRCNNGraph, 'Mask2Former': Mask2FormerGraph}


class DetectorGraph(nn.Module):
    """Normalisation, padding and the network.

    Args:
        model: mmdet's Mask R-CNN or Mask2Former.
        with_stages: Give what is computed on the way, too.

    Raises:
        InputError: The model is of another type.
    """

    def __init__(self, model: Any, with_stages: bool = False) -> None:
        super().__init__()
        family = type(model).__name__
        if family not in FAMILIES:
            raise InputError(f'model.type must be one of {", ".join(FAMILIES)} to be exported, got {family!r}')
        self.network = FAMILIES[family](model)
        self.preprocessor = model.data_preprocessor
        self.with_stages = with_stages

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Predict one image.

        Args:
            image: ``(H, W, 3) uint8``, RGB, at the size at which the network sees it.

        Returns:
            The outputs of the file, see docs/export.md; before them the stages on the way, in order, if asked for.
        """
        pixels = self._normalised(image.permute(2, 0, 1))
        outputs, stages = self.network(pixels[None], *image.shape[:2])
        return {'input': pixels, **stages, **outputs} if self.with_stages else outputs

    def _normalised(self, pixels: Tensor) -> Tensor:
        own = self.preprocessor
        values = (pixels if own._channel_conversion else pixels.flip(0)).float()  # no public name says so
        if own._enable_normalize:
            values = (values - own.mean) / own.std
        divisor = own.pad_size_divisor
        return F.pad(values, (0, -values.shape[2] % divisor, 0, -values.shape[1] % divisor), value=own.pad_value)
