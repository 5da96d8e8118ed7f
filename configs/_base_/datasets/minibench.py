# Procedural totes in ARMBench's folder shape, made on first use: for trying things out, never for results.
_base_ = './armbench-mix.py'

data_root = 'data/minibench'
dataset = dict(type='MinibenchDataset', data_root=data_root)

image_size = (320, 256)
train_pipeline = [
    dict(type='LoadPolygons'),
    dict(type='LazyResize', scale=image_size, keep_ratio=True),
    dict(type='LazyRandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='RenderImage'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadPolygons'),
    dict(type='LazyResize', scale=image_size, keep_ratio=True),
    dict(type='RenderImage'),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

train_dataloader = dict(
    num_workers=1,
    sampler=dict(type='InfiniteSampler'),
    batch_sampler=None,
    dataset=dict(filter_cfg=dict(min_size=0), pipeline=train_pipeline, **dataset),
)
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline, **dataset))
test_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline, **dataset))
