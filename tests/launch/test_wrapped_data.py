"""Data sets in wrappers: trained, validated, rehearsed, recorded and resumed, or refused."""

from pathlib import Path
from typing import Any

import pytest
from small_models import tiny_config

from armbench_mmdet.engine.checkpoints import find_checkpoint
from armbench_mmdet.errors import InputError
from armbench_mmdet.launch import set_resume, train
from armbench_mmdet.run_folder import read_record

BITMAPS = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(160, 128), keep_ratio=False),
]


def concatenated(data: dict[str, Any]) -> dict[str, Any]:
    return dict(type='ConcatDataset', datasets=[data, {**data, 'split': 'val'}], ignore_keys='subset')


def mixed(data: dict[str, Any]) -> dict[str, Any]:
    own = [dict(type='CopyPaste', max_num_pasted=3), dict(type='PackDetInputs')]
    return dict(type='MultiImageMixDataset', dataset={**data, 'pipeline': BITMAPS}, pipeline=own)


def concatenated_and_repeated(data: dict[str, Any]) -> dict[str, Any]:
    repeated = dict(type='RepeatDataset', times=2, dataset=data)
    return dict(type='ConcatDataset', datasets=[repeated, {**data, 'split': 'test'}])


@pytest.mark.parametrize(
    ('wrap', 'files'),
    [
        (concatenated, {'train.json', 'val.json'}),
        (mixed, {'train.json'}),
        (concatenated_and_repeated, {'train.json', 'test.json'}),
    ],
)
def test_wrapped_data_is_trained_recorded_and_resumed(wrap, files, minibench_root, tmp_path: Path, capsys) -> None:
    for iterations in (1, 2):
        config = tiny_config(minibench_root, tmp_path, iterations)
        config.val_dataloader.dataset = dict(type='RepeatDataset', times=1, dataset=config.val_dataloader.dataset)
        config.train_dataloader.dataset = wrap(config.train_dataloader.dataset.to_dict())
        set_resume(config, 'auto')
        train(config)
    assert 'metric self-test: ground truth of' in capsys.readouterr().out
    assert find_checkpoint(tmp_path).name == 'iter_2.pth'
    record = read_record(tmp_path)
    assert record is not None
    assert {Path(file).name for file in record.data} == files | {'val.json'}
    assert [attempt.start_iter for attempt in record.attempts] == [0, 1]


def test_joined_data_sets_must_have_the_same_classes(minibench_root: Path, tmp_path: Path) -> None:
    config = tiny_config(minibench_root, tmp_path, 1)
    joined = concatenated(config.train_dataloader.dataset.to_dict())
    joined['datasets'][1]['metainfo'] = dict(classes=('object',))
    config.train_dataloader.dataset = joined
    with pytest.raises(InputError, match=r"must have the same metainfo, got classes .*\('object',\)"):
        train(config)
