default_scope = 'mmdet'
custom_imports = dict(imports=['armbench_mmdet'], allow_failed_imports=False)
runner_type = 'ArmbenchRunner'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, save_best='coco/segm_mAP', rule='greater', max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'),
    progress=dict(type='ProgressHook'),
)
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='PretrainedReportHook'),  # of the weights in load_from, only the class head may start afresh
    dict(type='MetricSelfTestHook', load_annotations=dict(type='LoadPolygons')),  # ground truth must score 1.0
    dict(type='SpeedHook'),
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
randomness = dict(seed=0)

visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)

log_level = 'INFO'
load_from = None
resume = False
