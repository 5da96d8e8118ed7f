_base_ = '../_base_/shift/minibench.py'
base = '../mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'

_pipeline = [
    *_base_._first,
    _base_._render,
    dict(type='ReplaceBackground', prob=0.25),
    dict(type='ZoomOutTote', prob=0.25, scale_range=(0.4, 0.9)),
    _base_._pack,
]
ingredients = dict(
    final=dict(overrides=dict(train_dataloader=dict(dataset=dict(pipeline=_pipeline)), **_base_._longer.mask_rcnn)),
    longer=dict(overrides=_base_._longer.mask_rcnn),
    mask_nms=dict(weights_of='baseline', test_options=['--cfg-options', 'model.test_cfg.rcnn.mask_nms=0.5']),
)
