# Its backbone starts from the Mask R-CNN of the same length: train that first (`make minibench-results` does).
_base_ = [
    '../_base_/models/mask2former_r18-w32_q30.py',
    '../_base_/datasets/minibench.py',
    '../_base_/schedules/minibench-mask2former.py',
    '../_base_/iteration_runtime.py',
]

# Five times minibench's training images; the other splits are the same pictures.
dataset = dict(data_root='data/minibench-2k', train_images=2000)
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)

mask_rcnn = 'work_dirs/mask-rcnn_r18-w32_fpn-64_3k_minibench-2k/iter_3000.pth'
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=mask_rcnn, prefix='backbone.')))

# About half an hour, for a model that has 2,000 images to learn from.
max_iters = 6000
train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 3)
_base_.param_scheduler[1].end = max_iters
default_hooks = dict(checkpoint=dict(interval=max_iters // 3))
