_base_ = [
    '../_base_/models/mask2former_swin-b-p4-w12-384.py',
    '../_base_/datasets/armbench-mix-lsj.py',
    '../_base_/schedules/mask2former-lsj-50e.py',
    '../_base_/iteration_runtime.py',
]

default_hooks = dict(checkpoint=dict(interval=_base_.train_cfg.val_interval))

# The zoo's panoptic COCO weights: all of the model but the class head, so Swin's own weights need no download.
load_from = 'https://download.openmmlab.com/mmdetection/v3.0/mask2former/mask2former_swin-b-p4-w12-384-in21k_8xb2-lsj-50e_coco-panoptic/mask2former_swin-b-p4-w12-384-in21k_8xb2-lsj-50e_coco-panoptic_20220329_230021-05ec7315.pth'
model = dict(backbone=dict(init_cfg=None))
