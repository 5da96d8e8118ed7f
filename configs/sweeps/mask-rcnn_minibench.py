# Mask R-CNN on procedural totes: 25 short trainings, most of them ended early.
base = '../mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'
n_trials = 25
sampler = dict(type='TPESampler', multivariate=True, group=True, constant_liar=True)
pruner = dict(type='SuccessiveHalvingPruner', min_resource=1, reduction_factor=3)  # steps are validations

_max_iters = 240
fixed = {
    'train_cfg.max_iters': _max_iters,
    'train_cfg.val_interval': _max_iters // 6,
    'param_scheduler.CosineAnnealingLR.end': _max_iters,
    'default_hooks.checkpoint.interval': _max_iters,
}
parameters = {
    'optim_wrapper.optimizer.lr': dict(type='float', low=2e-4, high=8e-3, log=True),
    'optim_wrapper.optimizer.weight_decay': dict(type='float', low=1e-3, high=0.2, log=True),
    'model.backbone.frozen_stages': dict(type='int', low=-1, high=1),
    'flips': dict(
        type='choice',
        choices=dict(
            none={'overrides': {'train_dataloader.dataset.pipeline.LazyRandomFlip.prob': [0.0, 0.0, 0.0]}},
            some={'overrides': {'train_dataloader.dataset.pipeline.LazyRandomFlip.prob': [0.1, 0.1, 0.1]}},
            most={},
        ),
    ),
    'model.train_cfg.rpn.assigner.pos_iou_thr': dict(type='float', low=0.5, high=0.8),
    'roi_iou_thr': dict(
        type='float',
        low=0.4,
        high=0.6,
        paths=[f'model.train_cfg.rcnn.assigner.{name}' for name in ('pos_iou_thr', 'neg_iou_thr', 'min_pos_iou')],
    ),
}
