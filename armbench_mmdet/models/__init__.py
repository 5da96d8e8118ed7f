"""Model parts of this project, used by name from the configs."""

from armbench_mmdet.models.fusion_head import BoundedMaskFormerFusionHead
from armbench_mmdet.models.mask2former_head import StableMask2FormerHead
from armbench_mmdet.models.rle_mask_head import RleFCNMaskHead

__all__ = ['BoundedMaskFormerFusionHead', 'RleFCNMaskHead', 'StableMask2FormerHead']
