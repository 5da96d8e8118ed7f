# What may help against the two shifts on ARMBench; `final` is what minibench chose, see docs/shift.md.
base = '../mask_rcnn/mask-rcnn_r50_fpn_1x_armbench-mix.py'
_first = [
    dict(type='LoadPolygons'),
    dict(type='LazyResize', scale=(1333, 800), keep_ratio=True),
    dict(type='LazyRandomFlip', prob=0.5),
]
_jitter = [
    dict(type='LoadPolygons'),
    dict(type='RandomResize', scale=(1333, 800), ratio_range=(0.5, 1.5), resize_type='LazyResize', keep_ratio=True),
    dict(type='LazyRandomFlip', prob=0.5),
    dict(type='LazyRandomCrop', crop_size=(800, 1333), recompute_bbox=True, allow_negative_crop=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True),
]
_render, _pack = dict(type='RenderImage'), dict(type='PackDetInputs')
_zoom_out = dict(type='ZoomOutTote', prob=0.25, scale_range=(0.4, 0.9))
_background = dict(type='ReplaceBackground', prob=0.25)
_copy_paste = dict(type='ToteCopyPaste', prob=0.6, same_object_prob=1.0, max_pastes=6)
_pipelines = dict(
    final=[*_first, _render, _background, _zoom_out, _pack],
    zoom_out=[*_first, _render, _zoom_out, _pack],
    replace_background=[*_first, _render, _background, _pack],
    copy_paste=[*_first, _render, _copy_paste, _pack],
    scale_jitter=[*_jitter, _render, _pack],
    lighting=[*_first, _render, dict(type='WarehouseLighting', prob=0.5), _pack],
    crop_jitter=[*_first, dict(type='ToteCropJitter', prob=0.5), _render, _pack],
)
ingredients = dict(
    baseline=dict(seeds=[0, 1, 2]),
    final_two_sizes=dict(weights_of='final', test_options=['--tta', '1', '2']),
    mask_nms=dict(weights_of='baseline', test_options=['--cfg-options', 'model.test_cfg.rcnn.mask_nms=0.5']),
    **{
        _name: dict(
            overrides=dict(train_dataloader=dict(dataset=dict(pipeline=_pipeline))),
            seeds=[0, 1, 2] if _name == 'final' else [0],
        )
        for _name, _pipeline in _pipelines.items()
    },
)
