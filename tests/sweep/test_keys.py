"""How settings are named, and which values they take."""

from __future__ import annotations

import pytest

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.overrides import assignments, find

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


@pytest.mark.parametrize(
    ('key', 'paths'),
    [
        ('optim_wrapper.optimizer.lr', [('optim_wrapper', 'optimizer', 'lr')]),
        ('train_dataloader.pipeline.Flip.prob', [('train_dataloader', 'pipeline', 1, 'prob')]),
        ('train_dataloader.pipeline.1.prob', [('train_dataloader', 'pipeline', 1, 'prob')]),
        (
            'optim_wrapper.paramwise_cfg.custom_keys.backbone.norm.lr_mult',
            [('optim_wrapper', 'paramwise_cfg', 'custom_keys', 'backbone.norm', 'lr_mult')],
        ),
        (
            ['optim_wrapper', 'paramwise_cfg', 'custom_keys', 'backbone.norm', 'lr_mult'],
            [('optim_wrapper', 'paramwise_cfg', 'custom_keys', 'backbone.norm', 'lr_mult')],
        ),
        (
            'optim_wrapper.paramwise_cfg.custom_keys.backbone*.lr_mult',
            [
                ('optim_wrapper', 'paramwise_cfg', 'custom_keys', 'backbone', 'lr_mult'),
                ('optim_wrapper', 'paramwise_cfg', 'custom_keys', 'backbone.norm', 'lr_mult'),
            ],
        ),
        (['model', 'a.b', 'x'], [('model', 'a.b', 'x')]),
    ],
)
def test_find(key: str | list[str], paths: list[tuple]) -> None:
    assert find(CONFIG, key) == paths


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('optim_wrapper.optimizer.lrr', 'did you mean optim_wrapper.optimizer.lr'),
        ('train_dataloader.pipeline.Flip.probability', 'train_dataloader.pipeline.Flip.prob'),
        ('train_dataloader.pipeline.Load.x', 'one of the base config'),  # two items of that type
        ('train_dataloader.pipeline.7.prob', 'one of the base config'),
        (['optim_wrapper', 'optimizer.lr'], 'one of the base config'),
        ('model.a.b.x', r'must name one setting.*path=\[…\]'),
        ('max_iters', "'max_iters' only helps to write the base config"),
    ],
)
def test_key_is_refused(key: str | list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find(CONFIG, key)


@pytest.mark.parametrize(
    ('key', 'value', 'changes'),
    [
        ('optim_wrapper.optimizer.lr', 1, [(('optim_wrapper', 'optimizer', 'lr'), 1.0)]),
        ('optim_wrapper.optimizer.betas', [0.8, 0.9], [(('optim_wrapper', 'optimizer', 'betas'), (0.8, 0.9))]),
        ('optim_wrapper.clip_grad', {'max_norm': 1}, [(('optim_wrapper', 'clip_grad'), {'max_norm': 1})]),
        ('optim_wrapper', {'optimizer': {'lr': 0.5}}, [(('optim_wrapper', 'optimizer', 'lr'), 0.5)]),
        (
            'optim_wrapper.optimizer',
            {'_delete_': True, 'type': 'SGD', 'momentum': 0.9},
            [(('optim_wrapper', 'optimizer'), {'type': 'SGD', 'momentum': 0.9})],
        ),
    ],
)
def test_assignments(key: str, value: object, changes: list) -> None:
    assert assignments(CONFIG, key, value) == changes


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('train_dataloader.num_workers', 2.0, 'int 2, got 2.0'),
        ('train_dataloader.num_workers', True, 'int 2, got True'),
        ('model.is_frozen', 1, 'bool True, got 1'),
        ('optim_wrapper.optimizer.lr', '0.1', "float 0.001, got '0.1'"),
        ('optim_wrapper.optimizer.lr', None, 'got None'),
        ('optim_wrapper.optimizer', 'SGD', "dict .* got 'SGD'"),
        ('optim_wrapper.optimizer', {'lrr': 0.1}, 'did you mean lr'),
        ('optim_wrapper.optimizer', {'momentum': 0.9}, '_delete_=True replaces the whole'),
    ],
)
def test_value_of_another_type_is_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        assignments(CONFIG, key, value)
