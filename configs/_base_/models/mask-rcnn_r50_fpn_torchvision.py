# Computes what torchvision's maskrcnn_resnet50_fpn computes, with its weights (tools/convert.py weights torchvision).
_base_ = './mask-rcnn_r50_fpn.py'

# Deltas are clipped from above alone; the clamp of the centre never acts.
coder = dict(add_ctr_clamp=True, ctr_clamp=1_000_000)
loss_bbox = dict(type='SmoothL1Loss', beta=1 / 9, _delete_=True)
extractor = dict(roi_layer=dict(sampling_ratio=2, aligned=False))

model = dict(
    # A torchvision model that started from COCO's weights, as Amazon's, has frozen batch norm without an epsilon.
    # Of another one, set 1e-5.
    backbone=dict(norm_cfg=dict(requires_grad=False, eps=0.0)),
    rpn_head=dict(
        type='TorchvisionRPNHead',
        anchor_generator=dict(type='TorchvisionAnchorGenerator'),
        bbox_coder=coder,
        loss_bbox=loss_bbox,
    ),
    roi_head=dict(
        bbox_roi_extractor=extractor,
        bbox_head=dict(type='TorchvisionBBoxHead', bbox_coder=coder, loss_bbox=loss_bbox),
        mask_roi_extractor=extractor,
        mask_head=dict(type='TorchvisionMaskHead'),
    ),
    train_cfg=dict(
        rpn=dict(assigner=dict(type='BestMatchAssigner', min_pos_iou=0.0)),
        rpn_proposal=dict(max_per_img=2000, min_bbox_size=1e-3),
        rcnn=dict(assigner=dict(match_low_quality=False)),
    ),
    test_cfg=dict(rpn=dict(min_bbox_size=1e-3)),
)
