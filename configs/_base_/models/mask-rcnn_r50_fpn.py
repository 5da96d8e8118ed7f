_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

num_classes = 2  # tote, object; NumClassCheckHook compares every head with the data set
model = dict(
    backbone=dict(type='FoldedResNet'),  # the stock's outputs in less time
    rpn_head=dict(type='SparseRPNHead'),  # likewise
    roi_head=dict(
        bbox_head=dict(num_classes=num_classes),
        mask_head=dict(type='RleFCNMaskHead', num_classes=num_classes),  # the stock's masks, as run lengths
    ),
)
