# For one GPU of 24 GB: one image at a time and sixteen before each step, so that the learning rate stays as it is.
_base_ = [
    '../_base_/models/mask2former_swin-b-p4-w12-384.py',
    '../_base_/datasets/armbench-mix-lsj.py',
    '../_base_/schedules/mask2former-lsj-50e.py',
    '../_base_/iteration_runtime.py',
]

accumulate = 16
# mmdet reports 25.8 GB for two images a GPU; one, with Swin's activations computed twice, leaves room for full totes.
model = dict(backbone=dict(with_cp=True, init_cfg=None))
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(accumulative_counts=accumulate)
auto_scale_lr = dict(base_batch_size=1)  # --auto-scale-lr does not see the accumulation

# Loop, schedule and validation count images here, not steps.
max_iters = _base_.max_iters * accumulate
val_interval = _base_.train_cfg.val_interval * accumulate
train_cfg = dict(max_iters=max_iters, val_interval=val_interval)
param_scheduler = dict(end=max_iters, milestones=[max_iters * 8 // 9, max_iters * 26 // 27])
default_hooks = dict(checkpoint=dict(interval=val_interval))

load_from = _base_.coco_weights
