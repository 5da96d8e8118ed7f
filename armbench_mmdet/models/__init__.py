"""Model parts of this project, used by name from the configs."""

from armbench_mmdet.models.mask2former import BoundedMaskFormerFusionHead, StableMask2FormerHead
from armbench_mmdet.models.mask_rcnn import RleFCNMaskHead

__all__ = ['BoundedMaskFormerFusionHead', 'RleFCNMaskHead', 'StableMask2FormerHead']
