"""Several views of an image, and corrupted photos, through the real path."""

from pathlib import Path

import pytest
import torch
from small_models import tiny_config
from varied_weights import write_varied_weights

from armbench_mmdet import launch
from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.errors import InputError
from armbench_mmdet.launch import corruption_table, evaluate, evaluate_corrupted, set_tta
from armbench_mmdet.run_folder import read_corruptions


@pytest.fixture
def weights(minibench_root: Path, tmp_path: Path) -> Path:
    return write_varied_weights(tiny_config(minibench_root, tmp_path), tmp_path / 'varied.pth')


def test_views_are_merged_and_evaluated_or_refused(minibench_root: Path, tmp_path: Path, weights: Path) -> None:
    config = tiny_config(minibench_root, tmp_path)
    with pytest.raises(InputError, match='--tta must have scales above 0'):
        set_tta(config, [0.0])
    set_tta(config, [1.0, 1.5])
    result = evaluate(config, weights, SUBSETS[:1], 'test', tmp_path)[SUBSETS[0]]
    assert result.detections > 50
    assert result.scores['segm'].mAP is not None
    with pytest.raises(InputError, match='resizing step'):
        set_tta(config, [1.0])  # it is within the views now


def test_corruptions_are_measured_once(minibench_root: Path, tmp_path: Path, weights: Path, monkeypatch) -> None:
    def measured():
        return evaluate_corrupted(tiny_config(minibench_root, tmp_path), weights, SUBSETS[0], 'test', tmp_path / 'c')

    monkeypatch.setattr(launch, 'CORRUPTIONS', ('contrast', 'lens_smear'))
    monkeypatch.setattr(launch, 'SEVERITIES', (1, 5))
    config = tiny_config(minibench_root, tmp_path)
    clean = evaluate(config, weights, SUBSETS[:1], 'test', tmp_path)[SUBSETS[0]].scores['segm']
    found = measured()
    assert found.clean == {'mean': clean.mAP, **{name: one.mAP for name, one in clean.per_class.items()}}
    path = tmp_path / 'c' / f'{SUBSETS[0]}_test.json'
    assert read_corruptions(path) == found
    assert {name: len(scores) for name, scores in found.corrupted.items()} == {'contrast': 2, 'lens_smear': 2}
    scores = [score['object'] for severities in found.corrupted.values() for score in severities]
    assert found.performance('object')[0] == pytest.approx(sum(scores) / 4)
    assert 'lens_smear' in corruption_table(found)

    monkeypatch.setattr(launch, 'SEVERITIES', ())  # nothing is measured anew
    monkeypatch.setattr(launch, 'CORRUPTIONS', ('contrast', 'lens_smear', 'fog'))
    assert measured().corrupted == {**found.corrupted, 'fog': []}
    torch.save({**torch.load(weights), 'other': 1}, weights)
    assert measured().corrupted['contrast'] == []
    path.write_text('{}')
    with pytest.raises(InputError, match='corruptions must be'):
        read_corruptions(path)
