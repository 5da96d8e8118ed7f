"""How settings are named, and a trial's file: the base plus the changed leaves, reloaded and compared."""

import copy
from pathlib import Path
from typing import Any

import pytest

from armbench_mmdet.configs import load_config
from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.overrides import applied, assignments, difference, write_base, write_overrides

OLD: dict[str, Any] = {
    'optimizer': {'type': 'AdamW', 'lr': 1e-3, 'betas': (0.9, 0.999), 'fused': True},
    'keys': {'backbone.norm': {'lr_mult': 0.1}},
    'pipeline': [{'type': 'Load'}, {'type': 'Flip', 'prob': 0.5}],
    'clip': None,
    'name': "it's",
}
CASES = {
    'nothing': ([], {}),
    'leaf': ([(('optimizer', 'lr'), 0.1)], {'optimizer': {'lr': 0.1}}),
    'key with a dot': ([(('keys', 'backbone.norm', 'lr_mult'), 1.0)], {'keys': {'backbone.norm': {'lr_mult': 1.0}}}),
    'in a list': (
        [(('pipeline', 1, 'prob'), 0.1)],
        {'pipeline': [{'type': 'Load'}, {'type': 'Flip', 'prob': 0.1}]},
    ),
    'in a tuple': ([(('optimizer', 'betas', 0), 0.8)], {'optimizer': {'betas': (0.8, 0.999)}}),
    'replaced dict': (
        [(('optimizer',), {'type': 'SGD', 'lr': 0.1, 'nested': {'a': 1}}), (('optimizer', 'lr'), 0.2)],
        {'optimizer': {'_delete_': True, 'type': 'SGD', 'lr': 0.2, 'nested': {'a': 1}}},
    ),
    'grown dict': (
        [(('keys',), {'backbone.norm': {'lr_mult': 0.1}, 'head': {'lr_mult': 1.0}})],
        {'keys': {'head': {'lr_mult': 1.0}}},
    ),
    'dict for None': ([(('clip',), {'max_norm': 1.0})], {'clip': {'_delete_': True, 'max_norm': 1.0}}),
    'None for a dict': ([(('keys',), None)], {'keys': None}),
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write_base(tmp_path, Path('original.py'), OLD)
    return tmp_path


@pytest.mark.parametrize(('changes', 'written'), CASES.values(), ids=CASES)
def test_only_what_differs_is_written_and_reloads_as_meant(study: Path, changes: list, written: dict) -> None:
    before = copy.deepcopy(OLD)
    new = applied(OLD, changes)
    assert before == OLD
    assert difference(OLD, new) == written
    write_overrides(study / 'trial.py', 'base.py', OLD, new, 'a note')
    assert load_config(study / 'trial.py').to_dict() == new
    assert (study / 'trial.py').read_text().startswith("# a note\n_base_ = 'base.py'\n")


def test_a_file_that_reloads_differently_is_refused(study: Path) -> None:
    (study / 'base.py').write_text('clip = 3\n')
    with pytest.raises(InputError, match=r'must reload as written.*\n.*clip: None → 3\n.*optimizer'):
        write_overrides(study / 'trial.py', 'base.py', OLD, OLD, '')


CONFIG = {
    'optim_wrapper': {
        'optimizer': {'type': 'AdamW', 'lr': 1e-3, 'betas': (0.9, 0.999)},
        'paramwise_cfg': {'custom_keys': {'backbone': {'lr_mult': 0.1}, 'backbone.norm': {'lr_mult': 0.1}}},
        'clip_grad': None,
    },
    'train_dataloader': {
        'pipeline': [{'type': 'Load'}, {'type': 'Flip', 'prob': 0.5}, {'type': 'Load'}],
        'num_workers': 2,
    },
    'model': {'a': {'b': {'x': 1}}, 'a.b': {'x': 2}, 'is_frozen': True},
    'max_iters': 100,
}


OPTIMIZER, KEYS = ('optim_wrapper', 'optimizer'), ('optim_wrapper', 'paramwise_cfg', 'custom_keys')


@pytest.mark.parametrize(
    ('key', 'value', 'changes'),
    [
        ('optim_wrapper.optimizer.lr', 1, [((*OPTIMIZER, 'lr'), 1.0)]),
        ('optim_wrapper.optimizer.betas', [0.8, 0.9], [((*OPTIMIZER, 'betas'), (0.8, 0.9))]),
        ('optim_wrapper.clip_grad', {'max_norm': 1}, [(('optim_wrapper', 'clip_grad'), {'max_norm': 1})]),
        ('optim_wrapper', {'optimizer': {'lr': 0.5}}, [((*OPTIMIZER, 'lr'), 0.5)]),
        ('optim_wrapper.optimizer', {'_delete_': True, 'type': 'SGD'}, [(OPTIMIZER, {'type': 'SGD'})]),
        ('train_dataloader.pipeline.Flip.prob', 0.1, [(('train_dataloader', 'pipeline', 1, 'prob'), 0.1)]),
        ('train_dataloader.pipeline.1.prob', 0.1, [(('train_dataloader', 'pipeline', 1, 'prob'), 0.1)]),
        ('.'.join(KEYS) + '.backbone.norm.lr_mult', 0.5, [((*KEYS, 'backbone.norm', 'lr_mult'), 0.5)]),
        (
            '.'.join(KEYS) + '.backbone*.lr_mult',
            0.5,
            [((*KEYS, 'backbone', 'lr_mult'), 0.5), ((*KEYS, 'backbone.norm', 'lr_mult'), 0.5)],
        ),
    ],
)
def test_what_a_setting_changes(key: str, value: object, changes: list) -> None:
    assert assignments(CONFIG, key, value) == changes


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('optim_wrapper.optimizer.lrr', 1.0, 'did you mean optim_wrapper.optimizer.lr'),
        ('train_dataloader.pipeline.Load.x', 1, 'one of the base config'),  # two items of that type
        ('train_dataloader.pipeline.7.prob', 1.0, 'one of the base config'),
        ('model.a.b.x', 1, 'must name one setting'),
        ('max_iters', 1, "'max_iters' only helps to write the base config"),
        ('train_dataloader.num_workers', 2.0, 'int 2, got 2.0'),
        ('train_dataloader.num_workers', True, 'int 2, got True'),
        ('model.is_frozen', 1, 'bool True, got 1'),
        ('optim_wrapper.optimizer.lr', None, 'got None'),
        ('optim_wrapper.optimizer', 'SGD', "dict .* got 'SGD'"),
        ('optim_wrapper.optimizer', {'lrr': 0.1}, 'did you mean lr'),
        ('optim_wrapper.optimizer', {'momentum': 0.9}, '_delete_=True replaces the whole'),
    ],
)
def test_setting_is_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        assignments(CONFIG, key, value)
