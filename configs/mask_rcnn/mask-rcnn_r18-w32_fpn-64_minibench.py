_base_ = [
    '../_base_/models/mask-rcnn_r18-w32_fpn-64.py',
    '../_base_/datasets/minibench.py',
    '../_base_/schedules/minibench.py',
    '../_base_/iteration_runtime.py',
]

default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=_base_.max_iters))
levers = dict(channels_last=True)
