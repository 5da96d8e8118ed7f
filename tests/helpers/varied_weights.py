"""Random weights, scaled so that what they see is varied: scores from 0 to 1, boxes and masks of many shapes."""

from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

SIZE = (128, 160)
"""Height and width of most images of the tests' minibench."""


def write_varied_weights(config: Config, path: Path) -> Path:
    """A checkpoint for a Mask R-CNN or a Mask2Former."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    with torch.no_grad():
        if hasattr(model, 'roi_head'):
            for layer, factor in (
                (model.rpn_head.rpn_cls, 20),
                (model.rpn_head.rpn_reg, 5),
                (model.roi_head.bbox_head.fc_cls, 40),
                (model.roi_head.bbox_head.fc_reg, 40),
                (model.roi_head.mask_head.conv_logits, 30),
            ):
                layer.weight *= factor
        else:
            head = model.panoptic_head
            head.query_feat.weight *= 3
            head.cls_embed.weight *= 3
            head.mask_embed[-1].weight *= 3
    torch.save({'state_dict': model.state_dict()}, path)
    return path
