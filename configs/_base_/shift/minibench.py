# What may help against the two shifts, on procedural totes: docs/shift.md says how each model's `final` was chosen.
_first = [
    dict(type='LoadPolygons'),
    dict(type='LazyResize', scale=(320, 256), keep_ratio=True),
    dict(type='LazyRandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
]
_jitter = dict(type='RandomResize', scale=(320, 256), ratio_range=(0.5, 1.5), resize_type='LazyResize', keep_ratio=True)
_crop = dict(type='LazyRandomCrop', crop_size=(256, 320), recompute_bbox=True, allow_negative_crop=True)
_left = dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True)
_render, _pack = dict(type='RenderImage'), dict(type='PackDetInputs')
_zoom_out = dict(type='ZoomOutTote', prob=0.3, scale_range=(0.4, 0.9))
_copy_paste = dict(type='ToteCopyPaste', prob=0.6, same_object_prob=1.0, max_pastes=6)
_pipelines = dict(
    baseline=[*_first, _render, _pack],
    zoom_out=[*_first, _render, _zoom_out, _pack],
    replace_background=[*_first, _render, dict(type='ReplaceBackground', prob=0.3), _pack],
    copy_paste=[*_first, _render, _copy_paste, _pack],
    scale_jitter=[_first[0], _jitter, _first[2], _crop, _left, _render, _pack],
    lighting=[*_first, _render, dict(type='WarehouseLighting', prob=0.5), _pack],
    crop_jitter=[*_first, dict(type='ToteCropJitter', prob=0.5), _render, _pack],
)
# More iterations, so that as many unchanged pictures are seen as in the 620 and 1,200 of the baselines.
_longer = {
    _model: dict(
        train_cfg=dict(max_iters=_iterations, val_interval=_iterations // 2),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
            dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=40, end=_iterations),
        ],
        default_hooks=dict(checkpoint=dict(interval=_iterations)),
    )
    for _model, _iterations in dict(mask_rcnn=1000, mask2former=2000).items()
}
ingredients = dict(
    baseline=dict(seeds=[0, 1, 2]),
    final=dict(seeds=[0, 1, 2]),
    **{
        f'{_name}_two_sizes': dict(weights_of=_name, test_options=['--tta', '1', '2'])
        for _name in ('baseline', 'final')
    },
)
for _name, _pipeline in _pipelines.items():
    ingredients.setdefault(_name, dict())['overrides'] = dict(train_dataloader=dict(dataset=dict(pipeline=_pipeline)))
