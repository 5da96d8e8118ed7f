default_scope = 'mmdet'
custom_imports = dict(imports=['armbench_mmdet'], allow_failed_imports=False)
runner_type = 'ArmbenchRunner'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='AtomicCheckpointHook', interval=1, save_best='coco/segm_mAP', rule='greater', max_keep_ckpts=2
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'),
    progress=dict(type='ProgressHook'),
    validation_loss=dict(type='ValidationLossHook', max_images=200),
)
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='PretrainedReportHook'),  # of the weights in load_from, only the class head may start afresh
    dict(type='MetricSelfTestHook', load_annotations=dict(type='LoadPolygons')),  # ground truth must score 1.0
    dict(type='SpeedHook'),
    dict(type='LossGuardHook', on_bad_loss='stop'),  # or 'skip', with max_skipped
    dict(type='GradientNormHook'),
    dict(type='InterruptionHook'),  # SIGTERM and Ctrl-C: a checkpoint first
    dict(type='RunRecordHook'),
    dict(type='SeedingHook'),
    dict(type='BufferBroadcastHook'),  # what is validated is what is saved, with several processes too
    dict(type='ResumeHook'),  # last: it may validate before training goes on
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
randomness = dict(seed=0)

# No name: mmengine hands a second run in the same process the visualizer of the first run by that name.
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)

log_level = 'INFO'
load_from = None
resume = False
