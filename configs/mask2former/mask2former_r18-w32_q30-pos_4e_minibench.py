# What `make demo` trains: two thirds of the iterations, for masks that know their place tell objects apart early.
_base_ = './mask2former_r18-w32_q30_6e_minibench.py'

model = dict(
    backbone=dict(frozen_stages=2, norm_eval=True),  # pretrained by the demo's Mask R-CNN
    panoptic_head=dict(mask_positional_encoding=dict(num_feats=32, normalize=True, temperature=20)),
)

max_iters = 800
train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 2)
_base_.param_scheduler[1].end = max_iters
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
default_hooks = dict(checkpoint=dict(interval=max_iters))
