# What may help against the two shifts on ARMBench, after the large-scale jitter that the recipe has; `final` is what
# minibench chose, see docs/shift.md.
base = '../mask2former/mask2former_swin-b-p4-w12-384-in21k_8xb2-lsj-50e_armbench-mix.py'
_scene = [
    dict(type='LoadPolygons'),
    dict(type='LazyRandomFlip', prob=0.5),
    dict(type='RandomResize', scale=(1024, 1024), ratio_range=(0.1, 2.0), resize_type='LazyResize', keep_ratio=True),
    dict(
        type='LazyRandomCrop',
        crop_size=(1024, 1024),
        crop_type='absolute',
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True),
    dict(type='RenderImage'),
]
_copy_paste = dict(type='ToteCopyPaste', prob=0.6, same_object_prob=1.0, max_pastes=6)
_background = dict(type='ReplaceBackground', prob=0.2)
_zoom_out = dict(type='ZoomOutTote', prob=0.3, scale_range=(0.4, 0.9))
_added = dict(
    final=[_copy_paste, _zoom_out],
    copy_paste=[_copy_paste],
    replace_background=[_background],
    zoom_out=[_zoom_out],
    lighting=[dict(type='WarehouseLighting', prob=0.5)],
)
ingredients = dict(
    baseline=dict(seeds=[0, 1, 2]),
    final_two_sizes=dict(weights_of='final', test_options=['--tta', '1', '2']),
    **{
        _name: dict(
            overrides=dict(
                train_dataloader=dict(dataset=dict(pipeline=[*_scene, *_steps, dict(type='PackDetInputs')]))
            ),
            seeds=[0, 1, 2] if _name == 'final' else [0],
        )
        for _name, _steps in _added.items()
    },
)
