# The mix-object-tote subset: train on its train split, validate on val, report on test.
# The folder comes from --data-root, then ARMBENCH_ROOT, then data/armbench-segmentation-0.1.
dataset_type = 'ArmbenchDataset'

# Polygons first: boxes and masks are moved as coordinates, and RenderImage decodes the photo once, no larger than
# needed. Testing reads photos the same way.
train_pipeline = [
    dict(type='LoadPolygons'),
    dict(type='LazyResize', scale=(1333, 800), keep_ratio=True),
    dict(type='LazyRandomFlip', prob=0.5),
    dict(type='RenderImage'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadPolygons'),
    dict(type='LazyResize', scale=(1333, 800), keep_ratio=True),
    dict(type='RenderImage'),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type=dataset_type,
        subset='mix-object-tote',
        split='train',
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, subset='mix-object-tote', split='val', test_mode=True, pipeline=test_pipeline),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, subset='mix-object-tote', split='test', test_mode=True, pipeline=test_pipeline),
)

val_evaluator = dict(type='ArmbenchMetric')
test_evaluator = dict(type='ArmbenchMetric')
