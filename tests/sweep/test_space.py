"""Search spaces: the ready ones, what trials get, and every way to get one wrong."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import FixedTrial

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.space import load_space

REPO = Path(__file__).resolve().parents[2]
SPACES = sorted((REPO / 'configs/sweeps').glob('*.py'))
BASE = """
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1), 'backbone.norm': dict(lr_mult=0.1)}))
model = dict(depth=18, losses=dict(cls=2.0), cost=dict(cls=2.0))
train_dataloader = dict(pipeline=[dict(type='Load'), dict(type='Flip', prob=0.5)])
max_iters = 10
"""
LR = "'optim_wrapper.optimizer.lr': dict(type='float', low=1e-4, high=1e-2, log=True)"


def write(folder: Path, parameters: str, **values: object) -> Path:
    (folder / 'base_config.py').write_text(BASE)
    values = {'base': 'base_config.py', **values}
    text = ''.join(f'{key} = {value!r}\n' for key, value in values.items() if value is not None)
    path = folder / 'space.py'
    path.write_text(f'{text}parameters = {{{parameters}}}\n')
    return path


@pytest.mark.parametrize('path', SPACES, ids=lambda path: path.stem)
def test_ready_space(path: Path, tmp_path: Path) -> None:
    space = load_space(path)
    study = optuna.create_study(sampler=space.sampler(0), pruner=space.pruner())
    trials = [study.ask() for _ in range(5)]
    assert all(space.config(trial) != space.base_config for trial in trials)
    assert all(space.config(trial, with_fixed=False) != space.config(trial) for trial in trials) is bool(space.fixed)
    assert len(path.read_text().splitlines()) <= 40
    names = {parameter.name for parameter in space.parameters}
    wanted = {'mask-rcnn': 'frozen_stages', 'mask2former': 'queries'}[path.stem.partition('_')[0]]
    assert any(wanted in name for name in names)


GROUPS = """
    'optimizer': dict(type='choice', choices=dict(
        adamw=dict(parameters={'optim_wrapper.optimizer.lr': dict(type='float', low=1e-4, high=1e-3, log=True)}),
        sgd=dict(
            overrides={'optim_wrapper.optimizer': dict(_delete_=True, type='SGD', lr=0.1, momentum=0.9)},
            parameters={'optim_wrapper.optimizer.lr': dict(type='float', low=1e-2, high=1.0, log=True)}))),
    'augmentation': dict(type='choice', choices=dict(
        none={}, strong=dict(overrides={'train_dataloader.pipeline': [dict(type='Strong')]}))),
    'weight': dict(type='float', low=1, high=4, paths=['model.losses.cls', 'model.cost.cls']),
    'backbone': dict(type='float', low=0.01, high=1.0,
        paths=['optim_wrapper.paramwise_cfg.custom_keys.backbone.norm.lr_mult']),
"""


def test_groups_and_conditions(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, GROUPS, fixed={'model.depth': 50}))
    common, lr = {'weight': 3.0, 'backbone': 0.5}, 'optim_wrapper.optimizer.lr'
    sgd = space.config(FixedTrial({**common, 'optimizer': 'sgd', f'optimizer.sgd.{lr}': 0.2, 'augmentation': 'none'}))
    assert sgd['optim_wrapper']['optimizer'] == {'type': 'SGD', 'lr': 0.2, 'momentum': 0.9}
    assert sgd['model'] == {'depth': 50, 'losses': {'cls': 3.0}, 'cost': {'cls': 3.0}}
    rates = {'backbone': {'lr_mult': 0.1}, 'backbone.norm': {'lr_mult': 0.5}}
    assert sgd['optim_wrapper']['paramwise_cfg']['custom_keys'] == rates
    chosen = {**common, 'optimizer': 'adamw', f'optimizer.adamw.{lr}': 5e-4, 'augmentation': 'strong'}
    adamw = space.config(FixedTrial(chosen))
    assert adamw['optim_wrapper']['optimizer'] == {'type': 'AdamW', 'lr': 5e-4, 'weight_decay': 0.05}
    assert adamw['train_dataloader']['pipeline'] == [{'type': 'Strong'}]


def test_draws_depend_on_the_seed_and_the_number_only(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, LR, seed=1))
    other = load_space(write(tmp_path, LR, seed=2))

    def draw(which: int, space=space) -> dict:
        study = optuna.create_study(sampler=space.sampler(which))
        return space.config(study.ask())

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)
    assert draw(3) != draw(3, other)


def one(spec: str, name: str = 'optim_wrapper.optimizer.lr') -> str:
    return f'{name!r}: {spec}'


MALFORMED = {
    'unknown key': (one("dict(type='float', low=0, high=1)", 'optim_wrapper.optimizer.lrr'), {}, 'did you mean'),
    'wrong type': (one("dict(type='float', low=1.0, high=9.0)", 'model.depth'), {}, 'int 18, got 1.0'),
    'empty range': (one("dict(type='float', low=2.0, high=1.0)"), {}, 'low <= high. must hold'),
    'no high': (one("dict(type='float', low=0.0)"), {}, "missing 1 required positional argument: 'high'"),
    'rich choice': (one("dict(type='categorical', choices=[(1,), (2,)])"), {}, 'should be a tuple of None, bool'),
    'unknown type': (one("dict(type='normal', low=0, high=1)"), {}, "float, int, .* or choice, got 'normal'"),
    'unknown field': (one("dict(type='float', low=0.1, high=1.0, base=2)"), {}, "unexpected keyword argument 'base'"),
    'no choices': (one("dict(type='choice', choices={})"), {}, 'must contain one or more'),
    'bad bundle': (one("dict(type='choice', choices=dict(b=dict(model=1)))"), {}, 'unknown field `model`'),
    'directions': (LR, {'objective': ['a', 'b']}, r"direction must be one for each objective, \['a', 'b'\], got"),
    'enqueued name': (LR, {'enqueue': [{'optim_wrapper.optimizer.l': 0.1}]}, 'did you mean optim_wrapper.optimizer.lr'),
    'enqueued value': (LR, {'enqueue': [{'optim_wrapper.optimizer.lr': 5.0}]}, r'enqueue\[0\].*5.0.* out of the range'),
    'sampler': (LR, {'sampler': {'type': 'Guess'}}, "sampler .*has no attribute 'Guess'"),
    'sampler seed': (LR, {'sampler': {'type': 'TPESampler', 'seed': 1}}, "multiple values for keyword argument 'seed'"),
    'pruner option': (LR, {'pruner': {'type': 'HyperbandPruner', 'colour': 0}}, "unexpected keyword argument 'colour'"),
}


@pytest.mark.parametrize(('parameters', 'values', 'message'), MALFORMED.values(), ids=MALFORMED)
def test_malformed_space_is_one_clear_error(parameters: str, values: dict, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, parameters, **values)
    with pytest.raises(InputError, match=message) as caught:
        load_space(path)
    assert f'got 1 problem (in {path})' in str(caught.value)


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, one("dict(type='float', low=2, high=1)"), sampler={}, fixed={'model.dept': 1})
    with pytest.raises(InputError, match='got 3 problems'):
        load_space(path)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'trials': 5}, r'unknown field `trials` \(in .*space.py\); keys: base, parameters'),
        ({'base': None}, 'missing required field `base`'),
        ({'n_trials': 0}, r'`int` >= 1 - at `\$.n_trials`'),
        ({'direction': 'up'}, "Invalid enum value 'up'"),
        ({'base': 'nowhere.py'}, 'config must be .*nowhere.py'),
    ],
)
def test_space_of_another_shape_is_refused(values: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_space(write(tmp_path, LR, **values))
