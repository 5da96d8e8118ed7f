# The backbone starts from the demo's Mask R-CNN.
_base_ = '../_base_/shift/minibench.py'
base = '../mask2former/mask2former_r18-w32_q30_6e_minibench.py'

_pipeline = [
    *_base_._first,
    _base_._render,
    _base_._copy_paste,
    _base_._zoom_out,
    _base_._pack,
]
ingredients = dict(
    final=dict(overrides=dict(train_dataloader=dict(dataset=dict(pipeline=_pipeline)), **_base_._longer.mask2former)),
    longer=dict(
        overrides=dict(
            train_dataloader=dict(dataset=dict(pipeline=_base_._pipelines.baseline)), **_base_._longer.mask2former
        )
    ),
)
