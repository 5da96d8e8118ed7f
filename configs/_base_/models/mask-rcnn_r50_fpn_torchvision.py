# Computes what torchvision's maskrcnn_resnet50_fpn computes, with its weights (tools/convert.py weights torchvision).
_base_ = './mask-rcnn_r50_fpn.py'

model = dict(
    # Frozen batch norm; started from COCO's weights (Amazon's is), it has no epsilon there, else 1e-5.
    backbone=dict(frozen_stages=1, norm_cfg=dict(requires_grad=False, eps=0.0), init_cfg=None),
)
