# From Hugging Face's instance weights, which the zoo does not have; docs/weights.md says how to convert them.
_base_ = [
    '../_base_/models/mask2former_swin-b-p4-w12-384.py',
    '../_base_/datasets/armbench-mix-lsj.py',
    '../_base_/schedules/mask2former-lsj-50e.py',
    '../_base_/iteration_runtime.py',
]

default_hooks = dict(checkpoint=dict(interval=_base_.train_cfg.val_interval))

load_from = 'work_dirs/mask2former-swin-base-coco-instance.pth'
model = dict(backbone=dict(init_cfg=None))  # all in those weights already
