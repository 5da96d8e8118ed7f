# The backbone starts from the demo's Mask R-CNN.
_base_ = '../_base_/shift/minibench.py'
base = '../mask2former/mask2former_r18-w32_q30_6e_minibench.py'

_iterations = 2000  # instead of 1,200, so that as many unchanged pictures are seen
_longer = dict(
    train_cfg=dict(max_iters=_iterations, val_interval=_iterations // 2),
    param_scheduler=[
        dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
        dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=40, end=_iterations),
    ],
    default_hooks=dict(checkpoint=dict(interval=_iterations)),
)
_pipeline = [
    *_base_._first,
    _base_._render,
    _base_._copy_paste,
    _base_._zoom_out,
    _base_._pack,
]
ingredients = dict(
    final=dict(overrides=dict(train_dataloader=dict(dataset=dict(pipeline=_pipeline)), **_longer)),
    longer=dict(overrides=dict(train_dataloader=dict(dataset=dict(pipeline=_base_._pipelines.baseline)), **_longer)),
)
