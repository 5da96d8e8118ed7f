_base_ = [
    '../_base_/models/mask-rcnn_r18-w32_fpn-64.py',
    '../_base_/datasets/minibench.py',
    '../_base_/schedules/minibench-3k.py',
    '../_base_/iteration_runtime.py',
]

# Five times minibench's training images; the other splits are the same pictures.
dataset = dict(data_root='data/minibench-2k', train_images=2000)
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)

default_hooks = dict(checkpoint=dict(interval=1000))
