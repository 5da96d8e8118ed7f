"""Training and evaluation through the real path, on a handful of tiny totes."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small_models import tiny_config
from toy_run import assert_equal

from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.engine.checkpoints import find_checkpoint, load_weights
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.result import read_result
from armbench_mmdet.launch import evaluate, on_data, selftest, train


@pytest.fixture(scope='module')
def run(minibench_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    work_dir = tmp_path_factory.mktemp('run')
    config = tiny_config(minibench_root, work_dir)
    train(config)
    return config, work_dir


def test_same_seed_gives_the_same_weights(run, minibench_root: Path, tmp_path: Path, capfd) -> None:
    train(tiny_config(minibench_root, tmp_path))
    printed = ''.join(capfd.readouterr())
    for noise in ('mmengine - INFO', 'Hooks will be executed', 'paramwise_options', 'OneDL', 'Warning', 'warning:'):
        assert noise not in printed
    assert 'Hooks will be executed' in next(tmp_path.glob('*/*.log')).read_text()
    assert_equal(*(load_weights(find_checkpoint(folder)) for folder in (run[1], tmp_path)))


def test_all_subsets_get_a_result_file(run: tuple[Config, Path], tmp_path: Path) -> None:
    config, work_dir = copy.deepcopy(run[0]), run[1]
    logs = len(list(work_dir.glob('2*')))
    config.default_hooks.visualization.update(draw=True, test_out_dir=str(tmp_path / 'shown'))
    config.default_hooks.speed.warmup = 0
    results = evaluate(config, find_checkpoint(work_dir), SUBSETS, 'test', tmp_path)
    assert len(list(work_dir.glob('2*'))) == logs + 1, 'one runner, so one log for all subsets'
    assert list(results) == list(SUBSETS)
    for subset in SUBSETS:
        assert (results[subset].identity.subset, results[subset].identity.split) == (subset, 'test')
        assert read_result(tmp_path / f'{subset}_test.json') == results[subset]
        speed = results[subset].speed
        assert min(speed.parameters, speed.gflops, *(one.median_ms for one in speed.stages.values())) > 0
        assert selftest(config, subset, 'test').startswith(f'{subset} test: the ground truth of ')
        assert len(list((tmp_path / 'shown' / subset).iterdir())) == results[subset].images.ground_truth


OWN_FILES = [
    ({'ann_file': f'{SUBSETS[1]}/test.json'}, None, None, ''),
    ({'subset': SUBSETS[2]}, None, 'test', ''),
    ({'ann_file': f'{SUBSETS[1]}/val.json'}, SUBSETS[0], None, 'its own ann_file'),
    ({'type': 'RepeatDataset', 'dataset': {'type': 'ArmbenchDataset'}}, SUBSETS[0], None, 'its own dataset'),
    ({'type': 'ConcatDataset', 'datasets': [{}]}, None, 'val', 'its own datasets'),
]


@pytest.mark.parametrize(('settings', 'subset', 'split', 'message'), OWN_FILES)
def test_a_config_with_files_of_its_own_is_tested_on_these(run, tmp_path, settings, subset, split, message) -> None:
    config = copy.deepcopy(run[0])
    dataset = config.test_dataloader.dataset
    dataset.update(settings)
    if message:
        for check in (on_data, selftest):
            with pytest.raises(InputError, match=message):
                check(config, subset, split)
        return
    name = Path(settings.get('ann_file', f'{settings.get("subset")}/test.json'))
    assert selftest(config, subset, split).startswith(f'{name.parent} {name.stem}: ')
    results = evaluate(config, find_checkpoint(run[1]), (subset,), split, tmp_path)
    assert read_result(tmp_path / f'{name.parent}_{name.stem}.json') == results[str(name.parent)]


def test_missing_subset_is_reported_and_left_out(run, minibench_root: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / SUBSETS[0]).symlink_to(minibench_root / SUBSETS[0])
    config = tiny_config(tmp_path, run[1])
    config.test_dataloader.dataset.type = 'ArmbenchDataset'
    checkpoint = find_checkpoint(run[1])
    assert list(evaluate(config, checkpoint, SUBSETS[:2], 'test', tmp_path)) == [SUBSETS[0]]
    assert f'{SUBSETS[1]} is left out' in capsys.readouterr().out
    for missing in (SUBSETS[1:2], SUBSETS[1:]):
        with pytest.raises(InputError, match=missing[-1]):
            evaluate(config, checkpoint, missing, 'test', tmp_path)


def test_checkpoint_of_another_model_is_refused(run: tuple[Config, Path], tmp_path: Path) -> None:
    state = load_weights(find_checkpoint(run[1]))
    state['roi_head.bbox_head.fc_cls.weight'] = torch.zeros(81, 256)
    torch.save({'state_dict': state}, tmp_path / 'coco.pth')
    with pytest.raises(InputError, match=r'coco\.pth.*fc_cls\.weight \(81, 256\) ≠ \(3, 256\)'):
        evaluate(run[0], tmp_path / 'coco.pth', SUBSETS[:1], 'test', tmp_path)


def test_a_head_of_80_classes_is_not_trained(minibench_root: Path, tmp_path: Path) -> None:
    config = tiny_config(minibench_root, tmp_path)
    config.model.roi_head.bbox_head.num_classes = 80
    with pytest.raises(InputError, match='num_classes must be 2'):
        train(config)
