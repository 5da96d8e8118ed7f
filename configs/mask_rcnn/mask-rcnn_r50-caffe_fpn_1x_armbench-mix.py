_base_ = [
    '../_base_/models/mask-rcnn_r50-caffe_fpn.py',
    '../_base_/datasets/armbench-mix.py',
    '../_base_/schedules/1x.py',
    '../_base_/default_runtime.py',
]
