"""A made-up image's ground truth, for benchmarks of whole models."""

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from torch import Tensor

INSTANCES = 10


def instances(height: int, width: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Boxes ``(N, 4)``, labels and masks ``(N, H, W) uint8`` of rectangles."""
    rng = np.random.default_rng(0)
    corners = rng.integers(0, (width // 2, height // 2), (INSTANCES, 2))
    boxes = np.concatenate([corners, corners + rng.integers(20, (width // 2, height // 2), (INSTANCES, 2))], 1)
    masks = np.zeros((INSTANCES, height, width), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return torch.tensor(boxes, dtype=torch.float32), torch.arange(INSTANCES) % 2, masks


def sample(height: int, width: int) -> DetDataSample:
    """The same as mmdet has it."""
    boxes, labels, masks = instances(height, width)
    shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), (height, width))
    made = DetDataSample(metainfo={**shapes, 'scale_factor': (1.0, 1.0), 'img_id': 0})
    made.gt_instances = InstanceData(bboxes=boxes, labels=labels, masks=BitmapMasks(masks, height, width))
    return made
