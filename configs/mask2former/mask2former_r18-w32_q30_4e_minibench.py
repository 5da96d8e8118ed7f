# What `make demo` trains, from the backbone of its Mask R-CNN.
_base_ = [
    '../_base_/models/mask2former_r18-w32_q30.py',
    '../_base_/datasets/minibench.py',
    '../_base_/schedules/minibench-mask2former.py',
    '../_base_/iteration_runtime.py',
]

mask_rcnn = 'work_dirs/mask-rcnn_r18-w32_fpn-64_minibench/iter_620.pth'
model = dict(
    backbone=dict(
        frozen_stages=2,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=mask_rcnn, prefix='backbone.'),
    ),
    train_cfg=dict(num_points=512),  # a tenth of a mask at a quarter of 320×256
)

# Where all objects differ, queries learn to tell them by looks alone, and find identical ones as one: docs/shift.md.
_base_.train_pipeline.insert(-1, dict(type='ToteCopyPaste', prob=0.6, same_object_prob=1.0, max_pastes=6))
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))

max_iters = 800  # of two images: four epochs
train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 2)
_base_.param_scheduler[1].end = max_iters
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_iters))
levers = dict(channels_last=True)
