# The backbone starts from the demo's Mask R-CNN.
_base_ = '../_base_/shift/minibench.py'
base = '../mask2former/mask2former_r18-w32_q30_6e_minibench.py'
_pipeline = [
    *_base_._first,
    _base_._render,
    _base_._copy_paste,
    dict(type='ZoomOutTote', prob=0.2, scale_range=(0.4, 0.9)),
    _base_._pack,
]
ingredients = dict(final=dict(overrides=dict(train_dataloader=dict(dataset=dict(pipeline=_pipeline)))))
