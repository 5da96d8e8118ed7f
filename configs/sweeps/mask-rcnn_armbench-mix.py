# Mask R-CNN on ARMBench: 60 trainings of twelve epochs, most of them ended early.
base = '../mask_rcnn/mask-rcnn_r50_fpn_1x_armbench-mix.py'
n_trials = 60
sampler = dict(type='TPESampler', multivariate=True, group=True, constant_liar=True)
pruner = dict(type='SuccessiveHalvingPruner', min_resource=1, reduction_factor=3)  # steps are validations: epochs

_pipeline = 'train_dataloader.dataset.pipeline'
parameters = {
    'optimizer': dict(
        type='choice',
        choices=dict(
            sgd=dict(
                parameters={
                    'optim_wrapper.optimizer.lr': dict(type='float', low=2e-3, high=4e-2, log=True),
                    'optim_wrapper.optimizer.weight_decay': dict(type='float', low=1e-5, high=1e-3, log=True),
                },
            ),
            adamw=dict(
                overrides={'optim_wrapper.optimizer': dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05)},
                parameters={
                    'optim_wrapper.optimizer.lr': dict(type='float', low=2e-5, high=5e-4, log=True),
                    'optim_wrapper.optimizer.weight_decay': dict(type='float', low=1e-3, high=0.2, log=True),
                },
            ),
        ),
    ),
    'model.backbone.frozen_stages': dict(type='int', low=0, high=4),
    f'{_pipeline}.LazyRandomFlip.prob': dict(type='float', low=0.0, high=0.9),
    'model.train_cfg.rpn.assigner.pos_iou_thr': dict(type='float', low=0.5, high=0.8),
    'model.train_cfg.rpn_proposal.nms.iou_threshold': dict(type='float', low=0.6, high=0.9),
    'roi_iou_thr': dict(
        type='float',
        low=0.4,
        high=0.6,
        paths=[f'model.train_cfg.rcnn.assigner.{name}' for name in ('pos_iou_thr', 'neg_iou_thr', 'min_pos_iou')],
    ),
    'model.test_cfg.rcnn.nms.iou_threshold': dict(type='float', low=0.4, high=0.8),
}
