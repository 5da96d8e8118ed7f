"""Random weights, scaled so that what they see is varied: scores from 0 to 1, boxes and masks of many shapes."""

from pathlib import Path

from mmengine.config import Config
from small_models import write_weights

MASK_RCNN = {'rpn_cls': 20, 'rpn_reg': 5, 'fc_cls': 40, 'fc_reg': 40, 'conv_logits': 30}
MASK2FORMER = {'query_feat': 3, 'cls_embed': 3, 'mask_embed.4': 3}


def write_varied_weights(config: Config, path: Path) -> Path:
    """A checkpoint for a Mask R-CNN or a Mask2Former."""
    return write_weights(config, path, MASK_RCNN | MASK2FORMER)
