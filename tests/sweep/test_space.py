"""Search spaces: the ready ones, what trials get, how settings are named, and every way to get one wrong."""

import copy
import operator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial

from armbench_mmdet.configs import load_config
from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.outputs import difference, write_base, write_overrides
from armbench_mmdet.sweep.space import applied, assignments, load_space

REPO = Path(__file__).resolve().parents[2]
SPACES = sorted((REPO / 'configs/sweeps').glob('*.py'))
KEYS, HALF = {'backbone': {'lr_mult': 0.1}, 'backbone.norm': {'lr_mult': 0.1}}, {'lr_mult': 0.5}
MODEL: dict[str, Any] = {
    'lr': 1e-3,
    'betas': (0.9, 0.999),
    'clip': None,
    'keys': KEYS,
    'steps': [{'type': 'Load'}, {'type': 'Flip', 'prob': 0.5}, {'type': 'Load'}],
    'a': {'b': {'x': 1}},
    'a.b': {'x': 2, 'is_frozen': True, 'name': "it's"},
    'size': 2,
}
CONFIG = {'model': MODEL, 'max_iters': 100}
FLIPPED = {'steps': [{'type': 'Load'}, {'type': 'Flip', 'prob': 0.1}, {'type': 'Load'}]}


@pytest.mark.parametrize(
    ('key', 'value', 'written'),
    [
        ('lr', 1, {'lr': 1.0}),
        ('betas', [0, 1], {'betas': (0, 1)}),
        ('betas.0', 0.8, {'betas': (0.8, 0.999)}),
        ('clip', {'max_norm': 1}, {'clip': {'_delete_': True, 'max_norm': 1}}),
        ('keys', {'backbone': HALF}, {'keys': {'backbone': HALF}}),
        ('keys', {'_delete_': True, 'head': {'a': HALF}}, {'keys': {'_delete_': True, 'head': {'a': HALF}}}),
        ('keys', {'_delete_': True, **KEYS, 'head': HALF}, {'keys': {'head': HALF}}),
        ('keys.backbone.norm.lr_mult', 0.5, {'keys': {'backbone.norm': HALF}}),
        ('keys.backbone*.lr_mult', 0.5, {'keys': {'backbone': HALF, 'backbone.norm': HALF}}),
        ('steps.Flip.prob', 0.1, FLIPPED),
        ('steps.1.prob', 0.1, FLIPPED),
    ],
)
def test_only_what_differs_is_written_and_reloads_as_meant(
    key: str, value: object, written: dict, tmp_path: Path
) -> None:
    before = copy.deepcopy(CONFIG)
    new = applied(CONFIG, assignments(CONFIG, {f'model.{key}': value}))
    assert before == CONFIG
    assert difference(CONFIG, new) == {'model': written}
    write_base(tmp_path, Path('original.py'), CONFIG)
    path = tmp_path / 'trial/config.py'
    path.parent.mkdir()
    write_overrides(path, tmp_path, SimpleNamespace(base_config=CONFIG), new, 'a note')
    assert load_config(path).to_dict() == new
    assert path.read_text().startswith("# a note\n_base_ = '../base.py'\n")


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('model.lrr', 1.0, 'did you mean model.lr'),
        ('model.steps.Load.x', 1, 'one of the base config'),  # two items of that type
        ('model.steps.7.prob', 1.0, 'one of the base config'),
        ('model.a.b.x', 1, 'must name one setting'),
        ('max_iters', 1, "'max_iters' only helps to write the base config"),
        ('model.size', 2.0, 'int 2, got 2.0'),
        ('model.size', True, 'int 2, got True'),
        ('model.a.b.is_frozen', 1, 'bool True, got 1'),
        ('model.lr', None, 'got None'),
        ('model.keys', 'SGD', "dict .* got 'SGD'"),
        ('model', {'lrr': 0.1}, 'did you mean lr'),
        ('model', {'momentum': 0.9}, '_delete_=True replaces the whole'),
    ],
)
def test_setting_is_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        assignments(CONFIG, {key: value})


BASE = """
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1), 'backbone.norm': dict(lr_mult=0.1)}))
model = dict(depth=18, losses=dict(cls=2.0), cost=dict(cls=2.0))
train_dataloader = dict(pipeline=[dict(type='Load'), dict(type='Flip', prob=0.5)])
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
    configs = [space.config(trial) for trial in trials]
    assert all(config != space.base_config for config in configs)
    unfixed = [space.config(trial, with_fixed=False) for trial in trials]
    assert all(map(operator.ne, configs, unfixed)) is bool(space.given.fixed)
    assert len(path.read_text().splitlines()) <= 40
    wanted = {'mask-rcnn': 'frozen_stages', 'mask2former': 'queries'}[path.stem.partition('_')[0]]
    assert any(wanted in name for name in space.given.parameters)


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
