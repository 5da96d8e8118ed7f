default_scope = 'mmdet'
custom_imports = dict(imports=['armbench_mmdet'], allow_failed_imports=False)
runner_type = 'ArmbenchRunner'

# Each can be switched off alone: --cfg-options default_hooks.<name>.enabled=False. Of equal priorities, in this order.
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='AtomicCheckpointHook', interval=1, save_best='coco/segm_mAP', max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    speed=dict(type='SpeedHook'),
    visualization=dict(type='PicturesHook'),
    num_class_check=dict(type='NumClassCheckHook'),
    pretrained=dict(type='PretrainedReportHook', allow=[]),  # of load_from, only the class head may start afresh
    self_test=dict(type='MetricSelfTestHook'),  # ground truth scores 1.0
    validation_loss=dict(type='ValidationLossHook', max_images=200),
    loss_guard=dict(type='LossGuardHook', on_bad_loss='stop'),  # or 'skip', with max_skipped
    progress=dict(type='ProgressHook'),
    seeding=dict(type='SeedingHook'),
    buffer_broadcast=dict(type='BufferBroadcastHook'),  # what is validated is what is saved, by several processes too
    interruption=dict(type='InterruptionHook'),  # SIGTERM and Ctrl-C: a checkpoint first
    run_record=dict(type='RunRecordHook'),
    resume=dict(type='ResumeHook'),  # last: it may validate before training goes on
)

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
