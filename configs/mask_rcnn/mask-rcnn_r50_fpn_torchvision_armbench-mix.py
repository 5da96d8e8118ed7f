_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_torchvision.py',
    '../_base_/datasets/armbench-mix.py',
    '../_base_/schedules/1x.py',
    '../_base_/default_runtime.py',
]

# torchvision's sizes and pixels: bilinear, of the whole photo.
train_pipeline = [
    dict(type='LoadPolygons'),
    dict(type='FloorResize', scale=(1333, 800), keep_ratio=True),
    dict(type='LazyRandomFlip', prob=0.5),
    dict(type='RenderFloatImage'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadPolygons'),
    dict(type='FloorResize', scale=(1333, 800), keep_ratio=True),
    dict(type='RenderFloatImage'),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
