_base_ = [
    '../_base_/models/rtmdet-ins_s.py',
    '../_base_/datasets/armbench-mix-lsj-640.py',
    '../_base_/schedules/rtmdet-36e.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(checkpoint=dict(interval=_base_.train_cfg.val_interval))

# COCO weights from mmdet's zoo; the class convolutions differ (80 classes there) and start afresh.
load_from = 'https://download.openmmlab.com/mmdetection/v3.0/rtmdet/rtmdet-ins_s_8xb32-300e_coco/rtmdet-ins_s_8xb32-300e_coco_20221121_212604-fdc5d7ec.pth'
model = dict(backbone=dict(init_cfg=None))  # all in those weights already
