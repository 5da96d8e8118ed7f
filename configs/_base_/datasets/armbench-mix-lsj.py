# The mix-object-tote subset with large-scale jitter, as Mask2Former's authors train, polygons first.
_base_ = './armbench-mix.py'

image_size = (1024, 1024)
train_pipeline = [
    dict(type='LoadPolygons'),
    dict(type='LazyRandomFlip', prob=0.5),
    dict(type='RandomResize', scale=image_size, ratio_range=(0.1, 2.0), resize_type='LazyResize', keep_ratio=True),
    dict(
        type='LazyRandomCrop',
        crop_size=image_size,
        crop_type='absolute',
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True),
    dict(type='RenderImage'),
    dict(type='PackDetInputs'),
]

train_dataloader = dict(
    sampler=dict(type='InfiniteSampler', shuffle=True),  # the schedule counts iterations
    batch_sampler=None,
    dataset=dict(pipeline=train_pipeline),
)
