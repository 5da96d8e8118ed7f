"""Slips in a config: one message before the first iteration."""

from pathlib import Path
from typing import Any

import pytest
import torch
from toy_run import assert_equal, run, state_of, toy_config

from armbench_mmdet.errors import InputError
from armbench_mmdet.launch import make_usable, train

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')

STOPPING = dict(type='EarlyStoppingHook', monitor='toy/score')
SLIPS = [
    ({'train_dataloader.batch_size': 0}, 'batch_size should be a positive integer value'),
    ({'train_cfg.val_interval': 0}, r'val_interval must be a whole number of at least 1, got 0'),
    ({'optim_wrapper.accumulative_counts': True}, r'accumulative_counts must be .* got True'),
    ({'model.type': 'ToyModle'}, r"a known model, got 'ToyModle'; did you mean ToyModel\?"),
    ({'train_dataloader.sampler.type': 'InfinitSampler'}, r"data sampler, got 'InfinitSampler'; did you mean Infinite"),
    ({'custom_hooks.1.type': 'SeedingHok'}, r"a known hook, got 'SeedingHok'; did you mean SeedingHook\?"),
    ({'param_scheduler.0.type': 'CosineAnealingLR'}, r'did you mean CosineAnnealingLR\?'),
    ({'optim_wrapper.optimizer.type': 'AdmaW'}, r"a known optimizer, got 'AdmaW'; did you mean AdamW\?"),
    ({'val_evaluator': dict(_delete_=True, prefix='x')}, r'type must be in every dict that builds something'),
    ({'train_dataloader.batchsize': 2}, r"DataLoader has no option 'batchsize'; did you mean batch_size\?"),
    ({'optim_wrapper.optimizer.weight_decy': 0.1}, r"AdamW has no option 'weight_decy'; did you mean weight_decay\?"),
    ({'train_cfg.val_intervall': 3}, r"has no option 'val_intervall'; did you mean val_interval\?"),
    ({'default_hooks.checkpoint.save_best': ['toy/score', 'toy/sores']}, r"got 'toy/sores'; did you mean toy/score\?"),
    ({'custom_hooks.1': {**STOPPING, 'monitor': 'toy/sore', 'rule': 'less'}}, r"got 'toy/sore'; did you mean"),
    ({'custom_hooks.1': STOPPING}, r'EarlyStoppingHook: Cannot infer the rule'),
    pytest.param({'optim_wrapper.type': 'AmpOptimWrapper'}, r'without a GPU.*leave --amp out', marks=needs_no_gpu),
    ({'visualizer.vis_backends.0.type': 'WandbVisBackend'}, 'pip install wandb'),
]


@pytest.mark.parametrize(('changes', 'message'), SLIPS, ids=lambda value: '' if isinstance(value, str) else str(value))
def test_a_slip_is_one_message_before_the_first_iteration(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = toy_config(tmp_path, runner_type='ArmbenchRunner', **{'default_hooks.checkpoint.rule': 'greater'})
    config.experiment_name = tmp_path.name  # two of one name share a visualizer
    config.merge_from_dict(changes)
    with pytest.raises(InputError, match=f'(?s){message}'):
        train(config)
    assert not list(tmp_path.glob('*.pth'))
    assert not list(tmp_path.glob('*/vis_data/scalars.json'))


def test_all_wrong_values_are_told_at_once(tmp_path: Path) -> None:
    config = toy_config(tmp_path, **{'optim_wrapper.accumulative_counts': 0.5, 'train_cfg.max_iters': 0})
    with pytest.raises(InputError, match=r'(?s)max_iters .*\n.*accumulative_counts .* got 0.5'):
        make_usable(config)


def test_options_without_a_use_change_nothing(tmp_path: Path) -> None:
    loader = {'train_dataloader.persistent_workers': True, 'train_dataloader.prefetch_factor': 4}
    wrapper = {'optim_wrapper.loss_scale': 'dynamic', 'optim_wrapper.dtype': 'bfloat16'}  # after type=OptimWrapper
    changed = toy_config(tmp_path / 'changed', **loader, **wrapper)
    make_usable(changed)
    assert_equal(state_of(run(changed)), state_of(run(toy_config(tmp_path / 'plain'))))
