_base_ = [
    '../_base_/models/rtmdet-ins_w16.py',
    '../_base_/datasets/minibench.py',
    '../_base_/schedules/minibench.py',
    '../_base_/iteration_runtime.py',
]

max_iters = 1200
train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 2)
_base_.param_scheduler[1].end = max_iters
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_iters))
