_base_ = '../_base_/shift/minibench.py'
base = '../mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'

_iterations = 1000  # instead of 620, so that as many unchanged pictures are seen
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
    dict(type='ReplaceBackground', prob=0.25),
    dict(type='ZoomOutTote', prob=0.25, scale_range=(0.4, 0.9)),
    _base_._pack,
]
ingredients = dict(
    final=dict(overrides=dict(train_dataloader=dict(dataset=dict(pipeline=_pipeline)), **_longer)),
    longer=dict(overrides=_longer),
    mask_nms=dict(weights_of='baseline', test_options=['--cfg-options', 'model.test_cfg.rcnn.mask_nms=0.5']),
)
