# The schedule of four minutes drawn out to about half an hour, for a model that has 2,000 images to learn from.
_base_ = './minibench-mask2former.py'

max_iters = 6000
warmup_iters = 40

train_cfg = dict(max_iters=max_iters, val_interval=2000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warmup_iters),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=warmup_iters, end=max_iters),
]
