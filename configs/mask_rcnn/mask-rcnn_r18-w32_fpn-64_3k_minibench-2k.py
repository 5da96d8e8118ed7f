_base_ = [
    '../_base_/models/mask-rcnn_r18-w32_fpn-64.py',
    '../_base_/datasets/minibench-2k.py',
    '../_base_/schedules/minibench-3k.py',
    '../_base_/iteration_runtime.py',
]

default_hooks = dict(checkpoint=dict(interval=1000))
