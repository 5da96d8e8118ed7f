# Large-scale jitter around 640×640, for real-time models: half to twice the size, as RTMDet-Ins-s trains on COCO.
_base_ = './armbench-mix.py'

image_size = (640, 640)
train_pipeline = [
    dict(type='LoadPolygons'),
    dict(type='LazyRandomFlip', prob=0.5),
    dict(type='RandomResize', scale=image_size, ratio_range=(0.5, 2.0), resize_type='LazyResize', keep_ratio=True),
    dict(
        type='LazyRandomCrop',
        crop_size=image_size,
        crop_type='absolute',
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), by_mask=True),
    dict(type='RenderImage'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadPolygons'),
    dict(type='LazyResize', scale=image_size, keep_ratio=True),
    dict(type='RenderImage'),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

train_dataloader = dict(batch_size=32, batch_sampler=None, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
