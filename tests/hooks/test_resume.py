"""A run that was interrupted and resumed is the run that was not."""

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from toy_run import EPOCHS, assert_equal, logged, run, state_of, toy_config

from armbench_mmdet.engine.checkpoints import load_weights
from armbench_mmdet.errors import InputError
from armbench_mmdet.launch import set_resume

WITHIN_EPOCHS = {**EPOCHS, 'default_hooks.checkpoint': dict(interval=1, by_epoch=False)}
KINDS: dict[str, dict[str, Any]] = {
    'iterations': {},
    'finite sampler': {'train_dataloader.sampler.type': 'DefaultSampler'},  # an iteration loop over epochs
    'accumulating': {'optim_wrapper.accumulative_counts': 3},  # checkpoints fall between the batches of a step
    'epochs': EPOCHS,
    'within epochs': WITHIN_EPOCHS,
}


@pytest.fixture(scope='module', params=KINDS)
def uninterrupted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    config = toy_config(tmp_path_factory.mktemp('whole'), **KINDS[request.param])
    return request.param, state_of(run(config))


@pytest.mark.parametrize(
    ('deaths', 'workers'),
    [(['4', '7', 'val 9'], (0, 0)), (['val 6', '12', 'val 12'], (0, 0)), (['7'], (2, 1))],
    ids=str,
)
def test_a_resumed_run_is_the_uninterrupted_one(uninterrupted: Any, deaths: list, workers: tuple, tmp_path) -> None:
    kind, state = uninterrupted
    before, after = ({**KINDS[kind], 'train_dataloader.num_workers': count} for count in workers)
    for death in deaths:
        dies = dict(iteration=int(death.split()[-1]), in_validation='val' in death)
        run(toy_config(tmp_path, **before), 'auto', dies)
    assert_equal(state_of(run(toy_config(tmp_path, **after), 'auto')), state)


@pytest.mark.parametrize(('kind', 'left'), [('iterations', 3 + 3), ('finite sampler', 3 + 2), ('within epochs', 2)])
def test_resuming_loads_no_sample_of_the_past(kind: str, left: int, tmp_path: Path) -> None:
    run(toy_config(tmp_path, **KINDS[kind]), dies=dict(iteration=11))
    runner = run(toy_config(tmp_path, **KINDS[kind]), 'auto')  # from 10, or within epochs from 11, to 12
    assert len(runner.train_dataloader.dataset.loaded) == left


def test_resuming_a_finished_run_validates_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    state = state_of(run(toy_config(tmp_path)))
    before = logged(tmp_path)
    capsys.readouterr()
    runner = run(toy_config(tmp_path), 'auto')
    assert 'finished at iteration 12: nothing to train, validating' in capsys.readouterr().out
    assert_equal(dict(runner.model.state_dict()), dict(state['weights']))
    assert logged(tmp_path) == before
    assert runner.message_hub.get_scalar('val/toy/score').data[0].size == 4, 'the last one again'


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'randomness.seed': 4}, r'another optimizer, schedule or seed.*randomness\.seed: 3 → 4'),
        ({'model.width': 6}, r'net\.0\.weight \(5, 3\) ≠ \(6, 3\).*Resume with the config'),
        ({'train_dataloader.batch_size': 2}, r'iter_7\.pth\):\n  batch_size: 3 → 2\n  epoch_length: 3 → 4'),
        ({'optim_wrapper.optimizer.lr': 0.1}, r'optim_wrapper\.optimizer\.lr: 0\.05 → 0\.1.*load_from=.*iter_7\.pth'),
        ({'param_scheduler.0.T_max': 24}, r'param_scheduler\.0\.T_max: 12 → 24'),
        ({'auto_scale_lr': dict(enable=True, base_batch_size=6)}, r'auto_scale_lr\.enable: – → True'),
    ],
    ids=lambda value: '' if isinstance(value, str) else str(value),
)
def test_what_cannot_be_resumed_exactly_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    run(toy_config(tmp_path, **WITHIN_EPOCHS), dies=dict(iteration=7))
    config = toy_config(tmp_path, **WITHIN_EPOCHS, **changes)
    resolved = config.pretty_text
    with pytest.raises(InputError, match=f'(?s){message}'):
        run(config, 'auto')
    assert not [path for path in tmp_path.glob('*.py') if path.read_text() == resolved], 'the folder keeps its config'


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'train_cfg.max_epochs': 5}, 'train_cfg.max_epochs: 4 → 5'),
        ({'optim_wrapper.accumulative_counts': 2}, 'optim_wrapper.accumulative_counts: – → 2'),
        ({'optim_wrapper.clip_grad': dict(max_norm=0.1)}, 'optim_wrapper.clip_grad.max_norm: – → 0.1'),
        ({'train_dataloader.dataset.count': 11}, 'images: 8 → 11\n  epoch_length: 3 → 4'),
        ({'train_dataloader.num_workers': 1, 'train_dataloader.pin_memory': True}, None),
    ],
    ids=str,
)
def test_what_is_followed_from_here_on_is_said(changes: dict[str, Any], message, tmp_path: Path, capsys) -> None:
    run(toy_config(tmp_path, **EPOCHS), dies=dict(iteration=5))
    capsys.readouterr()
    run(toy_config(tmp_path, **EPOCHS, **changes), 'auto')
    printed = capsys.readouterr().out
    assert message in printed if message else 'train_dataloader' not in printed


def test_a_best_checkpoint_is_none_to_resume_from(tmp_path: Path) -> None:
    run(toy_config(tmp_path))
    best = next(tmp_path.glob('best_*.pth'))
    with pytest.raises(InputError, match=r'it holds no optimizer, param_schedulers.*load_from='):
        run(toy_config(tmp_path), str(best))
    assert load_weights(best)


def test_resume_starts_afresh_in_an_empty_folder_and_else_needs_a_whole_checkpoint(tmp_path: Path, capsys) -> None:
    config = Config(dict(work_dir=str(tmp_path), load_from='coco.pth'))
    set_resume(config, 'auto')
    assert (config.load_from, config.get('resume')) == ('coco.pth', None)
    assert 'no checkpoint yet' in capsys.readouterr().out
    (tmp_path / 'epoch_3.pth').touch()
    for resume in ('auto', 'missing.pth'):
        with pytest.raises(InputError, match='--resume must find'):
            set_resume(config, resume)
