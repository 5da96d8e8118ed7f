_base_ = 'mmdet::rtmdet/rtmdet-ins_s_8xb32-300e_coco.py'

# The zoo's file is a whole experiment: keep the model.
for __key in set(_base_) - {'model'}:
    del _base_[__key]

num_classes = 2  # tote, object; NumClassCheckHook compares every head with the data set
norm_cfg = dict(type='BN')  # 32 images a GPU need no synchronised statistics, and a CPU has none
model = dict(
    data_preprocessor=dict(pad_size_divisor=32, pad_mask=True),  # images of a batch differ in size here
    backbone=dict(norm_cfg=norm_cfg),
    neck=dict(norm_cfg=norm_cfg),
    bbox_head=dict(
        type='RleRTMDetInsSepBNHead',  # the stock's masks, as run lengths
        num_classes=num_classes,
        norm_cfg=norm_cfg,
    ),
)
