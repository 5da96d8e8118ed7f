# Mask2Former Swin-B on ARMBench: 40 trainings of a tenth of the full schedule, most of them ended early.
base = '../mask2former/mask2former_swin-b-p4-w12-384-in21k_8xb2-lsj-50e_armbench-mix.py'
n_trials = 40
sampler = dict(type='TPESampler', multivariate=True, group=True, constant_liar=True)
pruner = dict(type='HyperbandPruner', min_resource=1, max_resource=9, reduction_factor=3)  # steps are validations

_iters = 9_720
fixed = {
    'train_cfg.max_iters': _iters,
    'train_cfg.val_interval': _iters // 9,
    'param_scheduler': dict(end=_iters, milestones=[_iters * 8 // 9, _iters * 26 // 27]),
    'default_hooks.checkpoint.interval': _iters,
    # With another number of queries theirs start afresh; the rest comes from the COCO weights.
    'default_hooks.pretrained.allow': ['query_(embed|feat)'],
}
_optim, _head, _costs = 'optim_wrapper', 'model.panoptic_head', 'model.train_cfg.assigner.match_costs'
_backbone = ('backbone*', 'absolute_pos_embed', 'relative_position_bias_table')  # they move together
_rates = [f'{_optim}.paramwise_cfg.custom_keys.{name}.lr_mult' for name in _backbone]
_cls = [f'{_head}.loss_cls.loss_weight', f'{_costs}.ClassificationCost.weight']  # loss and matching cost stay equal
_mask = [f'{_head}.loss_mask.loss_weight', f'{_costs}.CrossEntropyLossCost.weight']
_dice = [f'{_head}.loss_dice.loss_weight', f'{_costs}.DiceCost.weight']
_queries = {
    str(n): dict(overrides={f'{_head}.num_queries': n, 'model.test_cfg.max_per_image': n}) for n in (50, 100, 150)
}
parameters = {
    f'{_optim}.optimizer.lr': dict(type='float', low=2e-5, high=4e-4, log=True),
    'backbone_lr_mult': dict(type='float', low=0.02, high=1.0, log=True, paths=_rates),
    'cls_weight': dict(type='float', low=1.0, high=4.0, paths=_cls),
    'mask_weight': dict(type='float', low=2.0, high=8.0, paths=_mask),
    'dice_weight': dict(type='float', low=2.0, high=8.0, paths=_dice),
    'queries': dict(type='choice', choices=_queries),
}
