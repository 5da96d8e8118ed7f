# RTMDet-Ins for two CPU cores and random weights: a quarter of the width of L, 0.9 million parameters.
_base_ = './rtmdet-ins_s.py'

channels = 64
model = dict(
    backbone=dict(deepen_factor=0.167, widen_factor=0.25, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256], out_channels=channels),
    bbox_head=dict(in_channels=channels, feat_channels=channels),
)
