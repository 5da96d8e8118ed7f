# Mask R-CNN for two CPU cores and random weights: the same parts as R50-FPN, 3.9 million parameters.
_base_ = './mask-rcnn_r50_fpn.py'

channels = 64
model = dict(
    backbone=dict(
        depth=18,
        base_channels=32,
        stem_channels=32,
        frozen_stages=-1,
        norm_eval=False,  # nothing is pretrained, so batch norm learns its statistics
        zero_init_residual=False,  # blocks that begin as nothing learn too little in so few iterations
        init_cfg=None,
    ),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=channels),
    rpn_head=dict(in_channels=channels, feat_channels=channels),
    roi_head=dict(
        # Objects are small here: finest_scale=28 (56 in R50-FPN) spreads them over the levels.
        bbox_roi_extractor=dict(out_channels=channels, finest_scale=28),
        bbox_head=dict(in_channels=channels, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=channels, finest_scale=28),
        mask_head=dict(in_channels=channels, conv_out_channels=channels, num_convs=2),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=100),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=150)),
)
