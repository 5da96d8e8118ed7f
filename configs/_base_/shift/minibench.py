# What may help against the two shifts, on procedural totes: docs/shift.md says how `final` was chosen.
_first = [
    dict(type='LoadPolygons'),
    dict(type='LazyResize', scale=(320, 256), keep_ratio=True),
    dict(type='LazyRandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
]
_jitter = dict(type='RandomResize', scale=(320, 256), ratio_range=(0.5, 1.5), resize_type='LazyResize', keep_ratio=True)
_crop = dict(type='LazyRandomCrop', crop_size=(256, 320), recompute_bbox=True, allow_negative_crop=True)
_left = dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True)
_render, _pack = dict(type='RenderImage'), dict(type='PackDetInputs')
_zoom_out, _zoom_half = (dict(type='ZoomOutTote', prob=_prob, scale_range=(0.4, 0.9)) for _prob in (0.3, 0.5))
_copy_paste = dict(type='ToteCopyPaste', prob=0.5, same_object_prob=0.7)
_lighting = dict(type='WarehouseLighting', prob=0.5)
_pipelines = dict(
    final=[*_first, _render, _zoom_out, _pack],
    zoom_out_half=[*_first, _render, _zoom_half, _pack],
    copy_paste=[*_first, _render, _copy_paste, _pack],
    both_half=[*_first, _render, _copy_paste, _zoom_half, _pack],
    scale_jitter=[_first[0], _jitter, _first[2], _crop, _left, _render, _pack],
    lighting=[*_first, _render, _lighting, _pack],
    crop_jitter=[*_first, dict(type='ToteCropJitter', prob=0.5), _render, _pack],
)
ingredients = dict(
    baseline=dict(seeds=[0, 1, 2]),
    **{
        _name: dict(
            overrides=dict(train_dataloader=dict(dataset=dict(pipeline=_pipeline))),
            seeds=[0, 1, 2] if _name == 'final' else [0],
        )
        for _name, _pipeline in _pipelines.items()
    },
    **{
        f'{_name}_two_sizes': dict(weights_of=_name, test_options=['--tta', '1', '2'])
        for _name in ('baseline', 'final')
    },
)
