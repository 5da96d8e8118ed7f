# Its backbone starts from the Mask R-CNN of the same length: train that first (`make minibench-results` does).
_base_ = [
    '../_base_/models/mask2former_r18-w32_q30.py',
    '../_base_/datasets/minibench-2k.py',
    '../_base_/schedules/minibench-mask2former-6k.py',
    '../_base_/iteration_runtime.py',
]

mask_rcnn = 'work_dirs/mask-rcnn_r18-w32_fpn-64_3k_minibench-2k/iter_3000.pth'
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=mask_rcnn, prefix='backbone.')))

default_hooks = dict(checkpoint=dict(interval=2000))
