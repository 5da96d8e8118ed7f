"""Model parts of this project, used by name from the configs."""

from armbench_mmdet.models.mask2former import BoundedMaskFormerFusionHead, StableMask2FormerHead
from armbench_mmdet.models.mask_rcnn import RleFCNMaskHead, SparseRPNHead
from armbench_mmdet.models.resnet import FoldedResNet
from armbench_mmdet.models.rtmdet_ins import RleRTMDetInsSepBNHead
from armbench_mmdet.models.swin import WindowedSwinTransformer
from armbench_mmdet.models.torchvision import (
    BestMatchAssigner,
    TorchvisionAnchorGenerator,
    TorchvisionBBoxHead,
    TorchvisionMaskHead,
    TorchvisionRPNHead,
)
from armbench_mmdet.models.tta import MaskTTAModel

__all__ = [
    'BestMatchAssigner',
    'BoundedMaskFormerFusionHead',
    'FoldedResNet',
    'MaskTTAModel',
    'RleFCNMaskHead',
    'RleRTMDetInsSepBNHead',
    'SparseRPNHead',
    'StableMask2FormerHead',
    'TorchvisionAnchorGenerator',
    'TorchvisionBBoxHead',
    'TorchvisionMaskHead',
    'TorchvisionRPNHead',
    'WindowedSwinTransformer',
]
