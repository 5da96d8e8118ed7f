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
def test_only_what_differs_is_written_and_reloads(key: str, value: object, written: dict, tmp_path: Path) -> None:
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
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05))
model = dict(depth=18, losses=dict(cls=2.0), cost=dict(cls=2.0))
train_dataloader = dict(pipeline=[dict(type='Load'), dict(type='Flip', prob=0.5)])
"""
LR, RATE = 'optim_wrapper.optimizer.lr', {'type': 'float', 'low': 1e-4, 'high': 1e-2, 'log': True}


def write(folder: Path, **values: Any) -> Path:
    (folder / 'base_config.py').write_text(BASE)
    values = {'base': 'base_config.py', 'parameters': {LR: RATE}, **values}
    path = folder / 'space.py'
    path.write_text(''.join(f'{key} = {value!r}\n' for key, value in values.items()))
    return path


@pytest.mark.parametrize('path', SPACES, ids=lambda path: path.stem)
def test_ready_space(path: Path) -> None:
    space = load_space(path)
    study = optuna.create_study(sampler=space.sampler(0), pruner=space.pruner())
    trials = [study.ask() for _ in range(5)]
    configs = [space.config(trial) for trial in trials]
    assert all(config != space.base_config for config in configs)
    unfixed = [space.config(trial, with_fixed=False) for trial in trials]
    assert all(map(operator.ne, configs, unfixed)) is bool(space.given.fixed)
    wanted = {'mask-rcnn': 'frozen_stages', 'mask2former': 'queries'}[path.stem.partition('_')[0]]
    assert any(wanted in name for name in space.given.parameters)


def test_groups_and_conditions(tmp_path: Path) -> None:
    replaced = {'optim_wrapper.optimizer': {'_delete_': True, 'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}}
    optimizers = {'adamw': {'parameters': {LR: RATE}}, 'sgd': {'overrides': replaced, 'parameters': {LR: RATE}}}
    strong = {'overrides': {'train_dataloader.pipeline': [{'type': 'Strong'}]}}
    parameters = {
        'optimizer': {'type': 'choice', 'choices': optimizers},
        'augmentation': {'type': 'choice', 'choices': {'none': {}, 'strong': strong}},
        'weight': {'type': 'float', 'low': 1, 'high': 4, 'paths': ['model.losses.cls', 'model.cost.cls']},
    }
    space = load_space(write(tmp_path, parameters=parameters, fixed={'model.depth': 50}))
    chosen = {'optimizer': 'sgd', f'optimizer.sgd.{LR}': 2e-3, 'augmentation': 'none', 'weight': 3.0}
    sgd = space.config(FixedTrial(chosen))
    assert sgd['optim_wrapper']['optimizer'] == {'type': 'SGD', 'lr': 2e-3, 'momentum': 0.9}
    assert sgd['model'] == {'depth': 50, 'losses': {'cls': 3.0}, 'cost': {'cls': 3.0}}
    chosen = {'optimizer': 'adamw', f'optimizer.adamw.{LR}': 5e-4, 'augmentation': 'strong', 'weight': 3.0}
    adamw = space.config(FixedTrial(chosen))
    assert adamw['optim_wrapper']['optimizer'] == {'type': 'AdamW', 'lr': 5e-4, 'weight_decay': 0.05}
    assert adamw['train_dataloader']['pipeline'] == [{'type': 'Strong'}]


def test_draws_depend_on_the_seed_and_the_number_only(tmp_path: Path) -> None:
    def draw(seed: int, number: int) -> dict[str, Any]:
        space = load_space(write(tmp_path, seed=seed))
        return space.config(optuna.create_study(sampler=space.sampler(number)).ask())

    assert draw(1, 3) == draw(1, 3)
    assert draw(1, 3) != draw(1, 4)
    assert draw(1, 3) != draw(2, 3)


def ranged(**spec: Any) -> dict[str, Any]:
    return {'parameters': {LR: spec}}


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'parameters': {'model.dept': RATE}}, 'did you mean model.depth'),
        ({'parameters': {'model.depth': RATE}}, 'int 18, got 0.0001'),
        (ranged(type='float', low=2.0, high=1.0), r'got 1 problem \(in .*space.py\):\n.*low <= high. must hold'),
        (ranged(type='float', low=0.0), "missing 1 required positional argument: 'high'"),
        (ranged(type='categorical', choices=[(1,), (2,)]), 'should be a tuple of None, bool'),
        (ranged(type='normal', low=0, high=1), "float, int, .* or choice, got 'normal'"),
        (ranged(type='choice', choices={}), 'must contain one or more'),
        (ranged(type='choice', choices={'b': {'model': 1}}), 'unknown field `model`'),
        ({'objective': ['a', 'b']}, r"direction must be one for each objective, \['a', 'b'\], got"),
        ({'enqueue': [{'optim_wrapper.optimizer.l': 0.1}]}, 'did you mean optim_wrapper.optimizer.lr'),
        ({'enqueue': [{LR: 5.0}]}, r'enqueue\[0\].*5.0.* out of the range'),
        ({'sampler': {'type': 'Guess'}}, "sampler .*has no attribute 'Guess'"),
        ({'sampler': {'type': 'TPESampler', 'seed': 1}}, "multiple values for keyword argument 'seed'"),
        ({'pruner': {'type': 'HyperbandPruner', 'colour': 0}}, "unexpected keyword argument 'colour'"),
        ({**ranged(**{**RATE, 'low': 1}), 'sampler': {}, 'fixed': {'model.dept': 1}}, 'got 3 problems'),
        ({'trials': 5}, r'unknown field `trials` \(in .*space.py\); keys: base, parameters'),
        ({'n_trials': 0}, r'`int` >= 1 - at `\$.n_trials`'),
        ({'direction': 'up'}, "Invalid enum value 'up'"),
        ({'base': 'nowhere.py'}, 'config must be .*nowhere.py'),
    ],
)
def test_malformed_space_is_one_clear_error(values: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_space(write(tmp_path, **values))
    for name in values.get('parameters', ()):
        assert f"\n  parameters['{name}']" in str(caught.value)
