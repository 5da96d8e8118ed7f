# Mask2Former on procedural totes: 20 short trainings, most of them ended early.
base = '../mask2former/mask2former_r18-w32_q30_minibench.py'
n_trials = 20
sampler = dict(type='TPESampler', multivariate=True, group=True, constant_liar=True)
pruner = dict(type='HyperbandPruner', min_resource=1, max_resource=6, reduction_factor=3)  # steps are validations

_iters = 420
fixed = {
    'train_cfg.max_iters': _iters,
    'train_cfg.val_interval': _iters // 6,
    'param_scheduler.CosineAnnealingLR.end': _iters,
    'default_hooks.checkpoint.interval': _iters,
    # With a multiplier of one for the backbone, so that there is a key to search.
    'optim_wrapper': dict(
        _delete_=True,
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
        clip_grad=dict(max_norm=1.0),
        paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=1.0))),
    ),
}
_optim, _head, _costs = 'optim_wrapper', 'model.panoptic_head', 'model.train_cfg.assigner.match_costs'
_cls = [f'{_head}.loss_cls.loss_weight', f'{_costs}.ClassificationCost.weight']  # loss and matching cost stay equal
_mask = [f'{_head}.loss_mask.loss_weight', f'{_costs}.CrossEntropyLossCost.weight']
_dice = [f'{_head}.loss_dice.loss_weight', f'{_costs}.DiceCost.weight']
_queries = {
    str(n): dict(overrides={f'{_head}.num_queries': n, 'model.test_cfg.max_per_image': 2 * n}) for n in (15, 20, 30)
}
parameters = {
    f'{_optim}.optimizer.lr': dict(type='float', low=2e-4, high=4e-3, log=True),
    f'{_optim}.paramwise_cfg.custom_keys.backbone.lr_mult': dict(type='float', low=0.1, high=2.0, log=True),
    'cls_weight': dict(type='float', low=1.0, high=4.0, paths=_cls),
    'mask_weight': dict(type='float', low=2.0, high=8.0, paths=_mask),
    'dice_weight': dict(type='float', low=2.0, high=8.0, paths=_dice),
    'queries': dict(type='choice', choices=_queries),
}
