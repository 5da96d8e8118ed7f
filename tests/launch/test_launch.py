"""From a config to a run on a few tiny totes: training, evaluation, slips in it, checkpoints that would run code."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from small_models import LEAVES, VARIED, Attack, tiny_config, write_weights
from toy_run import assert_equal, state_of, toy_config
from toy_run import run as toy_run

from armbench_mmdet import launch
from armbench_mmdet.configs import load_config
from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.engine.checkpoints import find_checkpoint, load_weights
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.result import read_result
from armbench_mmdet.launch import evaluate, make_usable, on_data, selftest, set_resume, set_tta, train
from armbench_mmdet.run_folder import read_corruptions, read_record


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


STEPS = """
import resource, torch
from armbench_mmdet.launch import keep_freed_memory
keep_freed_memory()
for _ in range(12):
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    torch.ones(2**24)  # 16,384 pages
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc alone has the switch')
def test_freed_memory_stays_for_the_next_step() -> None:
    faults = subprocess.check_output([sys.executable, '-c', STEPS], text=True).split()
    assert int(faults[-1]) - int(faults[-6]) < 2000, faults


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


@pytest.mark.parametrize(
    ('settings', 'subset', 'split', 'message'),
    [
        ({'ann_file': f'{SUBSETS[1]}/test.json'}, None, None, ''),
        ({'subset': SUBSETS[2]}, None, 'test', ''),
        ({'ann_file': f'{SUBSETS[1]}/val.json'}, SUBSETS[0], None, 'its own ann_file'),
        ({'type': 'RepeatDataset', 'dataset': {'type': 'ArmbenchDataset'}}, SUBSETS[0], None, 'its own dataset'),
        ({'type': 'ConcatDataset', 'datasets': [{}]}, None, 'val', 'its own datasets'),
    ],
)
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


def test_a_model_of_other_classes_is_neither_tested_nor_trained(run, minibench_root: Path, tmp_path: Path) -> None:
    state = load_weights(find_checkpoint(run[1]))
    state['roi_head.bbox_head.fc_cls.weight'] = torch.zeros(81, 256)
    torch.save({'state_dict': state}, tmp_path / 'coco.pth')
    with pytest.raises(InputError, match=r'coco\.pth.*fc_cls\.weight \(81, 256\) ≠ \(3, 256\)'):
        evaluate(run[0], tmp_path / 'coco.pth', SUBSETS[:1], 'test', tmp_path)
    config = tiny_config(minibench_root, tmp_path)
    config.model.roi_head.bbox_head.num_classes = 80
    with pytest.raises(InputError, match='num_classes must be 2'):
        train(config)


@pytest.fixture
def weights(minibench_root: Path, tmp_path: Path) -> Path:
    return write_weights(tiny_config(minibench_root, tmp_path), tmp_path / 'varied.pth', VARIED)


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
        config = tiny_config(minibench_root, tmp_path)
        return launch.evaluate_corrupted(config, weights, SUBSETS[0], 'test', tmp_path / 'c')

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
    assert 'lens_smear' in launch.corruption_table(found)

    monkeypatch.setattr(launch, 'SEVERITIES', ())  # nothing is measured anew
    monkeypatch.setattr(launch, 'CORRUPTIONS', ('contrast', 'lens_smear', 'fog'))
    assert measured().corrupted == {**found.corrupted, 'fog': []}
    torch.save({**torch.load(weights), 'other': 1}, weights)
    assert measured().corrupted['contrast'] == []
    path.write_text('{}')
    with pytest.raises(InputError, match='corruptions must be'):
        read_corruptions(path)


def mixed(data: dict[str, Any]) -> dict[str, Any]:
    masks = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
    bitmaps = [dict(type='LoadImageFromFile'), masks, dict(type='Resize', scale=(160, 128), keep_ratio=False)]
    own = [dict(type='CopyPaste', max_num_pasted=3), dict(type='PackDetInputs')]
    return dict(type='MultiImageMixDataset', dataset={**data, 'pipeline': bitmaps}, pipeline=own)


def concatenated(data: dict[str, Any], **options: Any) -> dict[str, Any]:
    repeated = dict(type='RepeatDataset', times=2, dataset=data)
    return dict(type='ConcatDataset', datasets=[repeated, {**data, 'split': 'test', **options}], ignore_keys='subset')


@pytest.mark.parametrize(('wrap', 'files'), [(mixed, {'train.json'}), (concatenated, {'train.json', 'test.json'})])
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
    joined = concatenated(config.train_dataloader.dataset.to_dict(), metainfo=dict(classes=('object',)))
    config.train_dataloader.dataset = {**joined, 'ignore_keys': None}
    with pytest.raises(InputError, match=r"must have the same metainfo, got classes .*\('object',\)"):
        train(config)


needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')

STOPPING = dict(type='EarlyStoppingHook', monitor='toy/score')
SLIPS = [
    ({'train_dataloader.batch_size': 0}, 'batch_size should be a positive integer value'),
    ({'auto_scale_lr': dict(enable=True)}, r'auto_scale_lr\.base_batch_size must be set'),
    ({'train_cfg.val_interval': 0, 'train_cfg.max_iters': 0.5}, r'max_iters .* got 0.5.*\n.*val_interval .* got 0'),
    ({'optim_wrapper.accumulative_counts': True}, 'accumulative_counts must be a whole number .* at least 1, got True'),
    ({'optim_wrapper.optimizer.lr': 'x'}, r"AdamW: '<=' not supported between"),
    ({'randomness.seed': -5}, 'ArmbenchRunner: Seed must be between 0'),
    ({'optim_wrapper': None, 'param_scheduler': None}, 'train_cfg, and optim_wrapper should be either all None'),
    ({'model': 3}, 'ArmbenchRunner: model should be a nn.Module object or dict, but got 3'),
    ({'train_dataloader': 3}, 'train_dataloader must be a dict, got 3'),
    ({'model.type': 'ToyModle'}, r"a known model, got 'ToyModle'; did you mean ToyModel\?"),
    ({'train_dataloader.sampler.type': 'InfinitSampler'}, r"data sampler, got 'InfinitSampler'; did you mean Infinite"),
    ({'param_scheduler.0.type': 'CosineAnealingLR'}, r'did you mean CosineAnnealingLR\?'),
    ({'optim_wrapper.optimizer.type': 'AdmaW'}, r"a known optimizer, got 'AdmaW'; did you mean AdamW\?"),
    ({'val_evaluator': dict(_delete_=True, prefix='x')}, r'type must be in every dict that builds something'),
    ({'train_dataloader.batchsize': 2}, r"DataLoader has no option 'batchsize'; did you mean batch_size\?"),
    ({'optim_wrapper.optimizer.weight_decy': 0.1}, r"AdamW has no option 'weight_decy'; did you mean weight_decay\?"),
    ({'train_cfg.val_intervall': 3}, r"has no option 'val_intervall'; did you mean val_interval\?"),
    ({'default_hooks.checkpoint.save_best': ['toy/score', 'toy/sores']}, r"got 'toy/sores'; did you mean toy/score\?"),
    ({'default_hooks.checkpoint.save_bset': 'x'}, r"AtomicCheckpointHook has no option 'save_bset'; did you mean"),
    ({'custom_hooks.1': {**STOPPING, 'monitor': 'toy/sore', 'rule': 'less'}}, r"got 'toy/sore'; did you mean"),
    ({'custom_hooks.1': STOPPING}, r'EarlyStoppingHook: Cannot infer the rule'),
    pytest.param({'optim_wrapper.type': 'AmpOptimWrapper'}, r'without a GPU.*leave --amp out', marks=needs_no_gpu),
    ({'visualizer.vis_backends.0.type': 'WandbVisBackend'}, 'pip install wandb'),
]


@pytest.mark.parametrize(('changes', 'message'), SLIPS, ids=lambda value: '' if isinstance(value, str) else str(value))
def test_a_slip_is_one_message_before_it_trains(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = toy_config(tmp_path, runner_type='ArmbenchRunner', **{'default_hooks.checkpoint.rule': 'greater'})
    config.experiment_name = tmp_path.name  # two of one name share a visualizer
    config.merge_from_dict(changes)
    with pytest.raises(InputError, match=f'(?s){message}'):
        train(config)
    assert not list(tmp_path.glob('*.pth'))
    assert not list(tmp_path.glob('*/vis_data/scalars.json'))


def test_options_without_a_use_change_nothing(tmp_path: Path) -> None:
    loader = {'train_dataloader.persistent_workers': True, 'train_dataloader.prefetch_factor': 4}
    wrapper = {'optim_wrapper.loss_scale': 'dynamic', 'optim_wrapper.dtype': 'bfloat16'}  # after type=OptimWrapper
    changed = toy_config(tmp_path / 'changed', **loader, **wrapper)
    make_usable(changed)
    assert_equal(state_of(toy_run(changed)), state_of(toy_run(toy_config(tmp_path / 'plain'))))


LEAF = str(LEAVES['mask_rcnn'])
LOAD_FROM = ['--cfg-options', 'load_from={evil}']
INIT_CFG = ['--cfg-options', 'model.init_cfg.type=Pretrained', 'model.init_cfg.checkpoint={evil}']
SHORT = ['train_cfg.max_iters=1', 'val_cfg=None', 'val_dataloader=None', 'val_evaluator=None', 'param_scheduler=None']
SHORT += ['train_dataloader.num_workers=0']


@pytest.fixture
def start(tool: Callable, minibench_root: Path, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Starts a tool with weights that fit the minibench Mask R-CNN, and an attack: its exit status and error output."""
    evil = write_weights(load_config(LEAF), tmp_path / 'evil.pth', meta={'note': Attack(tmp_path / 'made')})

    def started(name: str, *words: str) -> tuple[int, str]:
        place = [] if name == 'export_weights.py' else ['--work-dir', tmp_path / 'run', '--data-root', minibench_root]
        status, _, said = tool(name, *place, *(word.format(evil=evil, folder=tmp_path) for word in words))
        return status, said

    return started


@pytest.mark.parametrize(
    'command',
    [
        ['train.py', LEAF, *LOAD_FROM],
        ['train.py', LEAF, '--resume', '{evil}'],
        ['train.py', LEAF, *INIT_CFG],
        ['train.py', LEAF, *INIT_CFG, 'model.init_cfg.prefix=backbone'],
        ['test.py', LEAF, '{evil}'],
        ['export_weights.py', '{evil}', '{folder}/out.safetensors'],
    ],
    ids=['load_from', 'resume', 'init_cfg', 'part of a model', 'test', 'export'],
)
def test_no_command_runs_its_code(command: list[str], start: Callable, tmp_path: Path) -> None:
    status, said = start(*command)
    assert status == 2
    assert 'evil.pth' in said
    assert 'could run code; if you trust its author, load it with --trust-checkpoint' in said
    assert not (tmp_path / 'made').exists()


@pytest.mark.slow
def test_a_trusted_one_is_used(start: Callable, tmp_path: Path) -> None:
    for command, left in (
        (['test.py', LEAF, '{evil}'], 'results/mix-object-tote_test.json'),
        (['train.py', LEAF, *LOAD_FROM, *SHORT], 'record.json'),
    ):
        assert start(command[0], '--trust-checkpoint', *command[1:])[0] == 0
        assert (tmp_path / 'run' / left).is_file()
        (tmp_path / 'made').unlink()
