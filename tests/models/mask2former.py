"""Mask2Former built from our configs and fed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import nn

MODEL_FILES = Path(__file__).resolve().parents[2] / 'configs/_base_/models'


def build(name: str, **changes: Any) -> nn.Module:
    """The model of a file, without pretrained weights and padding, every weight moved off its initial zero."""
    init_default_scope('mmdet')
    model = Config.fromfile(MODEL_FILES / name).model
    model.backbone.pop('init_cfg', None)
    model.data_preprocessor.batch_augments = None
    for key, value in changes.items():
        *path, last = key.split('.')
        node = model
        for part in path:
            node = node[part]
        node[last] = value
    torch.manual_seed(0)
    built = MODELS.build(model)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return built


def batch(side_px: int, images: int = 1) -> dict[str, Any]:
    """Random images of a tote and two objects."""
    masks = np.zeros((3, side_px, side_px), np.uint8)
    half = side_px // 2
    masks[0, 4:-4, 4:-4], masks[1, 10:half, 10:half], masks[2, half:-10, half:-10] = 1, 1, 1
    boxes = torch.tensor(
        [[4, 4, side_px - 4, side_px - 4], [10, 10, half, half], [half, half, side_px - 10, side_px - 10]]
    )
    samples = []
    for _ in range(images):
        sample = DetDataSample(
            metainfo={'img_shape': (side_px,) * 2, 'ori_shape': (2 * side_px,) * 2, 'scale_factor': (0.5, 0.5)}
        )
        sample.gt_instances = InstanceData(
            bboxes=boxes.float(), labels=torch.tensor([0, 1, 1]), masks=BitmapMasks(masks, side_px, side_px)
        )
        samples.append(sample)
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.randint(0, 256, (3, side_px, side_px), dtype=torch.uint8, generator=draw) for _ in range(images)]
    return {'inputs': inputs, 'data_samples': samples}
