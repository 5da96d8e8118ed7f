"""Hooks that guard a training: the metric and pretrained weights before it, its losses, those of the validation."""

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_state_dict
from processes import in_processes
from small_models import LEAVES, REPO, tiny_config
from torch import Tensor, nn
from toy_run import Points, assert_equal, guarded_runner, logged, weights

from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.datasets.armbench import MinibenchDataset
from armbench_mmdet.datasets.ground_truth import GroundTruth
from armbench_mmdet.engine.checkpoints import load_weights
from armbench_mmdet.engine.distributed import joined_processes
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.hooks.losses import ValidationLossHook
from armbench_mmdet.hooks.preflight import PretrainedReportHook, run_selftest
from armbench_mmdet.launch import build_runner, train


@pytest.fixture
def sound(minibench_root: Path) -> tuple[MinibenchDataset, GroundTruth]:
    """Four images, and their ground truth."""
    pipeline = [TRANSFORMS.build({'type': name}) for name in ('LoadImageFromFile', 'PackDetInputs')]
    place = {'subset': SUBSETS[0], 'split': 'test', 'data_root': minibench_root}
    dataset = MinibenchDataset(**place, pipeline=pipeline, test_mode=True)
    return dataset, dataset.ground_truth.load()


def records_of(dataset: MinibenchDataset) -> list[dict[str, Any]]:
    """The records of a data set, which from now on gives them as they are then."""
    records = [dataset.get_data_info(row) for row in range(len(dataset))]
    dataset.get_data_info = lambda row: copy.deepcopy(records[row])
    return records


def test_images_of_which_not_everything_is_scored_are_left_out(sound: Any) -> None:
    dataset, document = sound[0], json.loads(Path(sound[0].ann_file).read_text())
    crowd = next(one for one in document['annotations'] if one['image_id'] == dataset.get_data_info(2)['img_id'])
    crowd['iscrowd'] = 1
    records = records_of(dataset)
    del records[0]['instances'][0]
    records[2]['instances'][0]['ignore_flag'] = 1
    assert run_selftest(dataset, GroundTruth.of(document)) == 'ground truth of 3 images scores 1.0'


def of_another_size(path: str) -> str:
    return str(next(Path(path).parents[2].glob(f'{SUBSETS[2]}/images/*')))


@pytest.mark.parametrize(
    ('fault', 'message'),
    [
        (lambda record, one: one.update(bbox_label=1 - one['bbox_label']), 'lost at labels'),
        (lambda record, one: one.update(bbox=[one['bbox'][axis] for axis in (1, 0, 3, 2)]), 'lost at boxes'),
        (lambda record, one: one.update(mask=[[one['bbox'][i] for i in (0, 1, 2, 1, 2, 3, 0, 3)]]), 'lost at masks'),
        (lambda record, one: record.update(img_path=of_another_size(record['img_path'])), r'image size: \(118, 160\)'),
    ],
    ids=['shifted labels', 'swapped axes', 'boxes for masks', 'other photos'],
)
def test_each_injected_fault_is_caught_at_its_step(sound: Any, fault: Callable, message: str) -> None:
    for record in records_of(sound[0]):
        for one in record['instances']:
            fault(record, one)
    with pytest.raises(InputError, match=message):
        run_selftest(*sound)


def test_a_fault_behind_all_checked_steps_is_caught_by_the_score(sound: Any, monkeypatch) -> None:
    process = ArmbenchMetric.process
    monkeypatch.setattr(ArmbenchMetric, 'process', lambda metric, batch, samples: process(metric, batch, samples[1:]))
    with pytest.raises(InputError, match='lost at metric: bbox mAP is 0'):
        run_selftest(*sound)


def built(model: Any) -> nn.Module:
    init_default_scope('mmdet')
    if 'init_cfg' in model.backbone:
        model.backbone.init_cfg = None
    return MODELS.build(model)


PANOPTIC = 'mmdet::mask2former/mask2former_swin-b-p4-w12-384-in21k_8xb2-lsj-50e_coco-panoptic.py'
AFRESH = {  # our model and the zoo's of a checkpoint: what starts afresh, with the rows of a tensor there and here
    ('mask2former_swin-b-p4-w12-384.py', PANOPTIC): {'panoptic_head.cls_embed': (134, 3)},
    ('mask-rcnn_r50_fpn.py', 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'): {
        'roi_head.bbox_head.fc_cls': (81, 3),
        'roi_head.bbox_head.fc_reg': (320, 8),
        'roi_head.mask_head.conv_logits': (80, 2),
    },
}


@pytest.mark.parametrize(('ours', 'zoo'), AFRESH)
def test_of_the_zoo_checkpoint_only_the_class_head_starts_afresh(tmp_path: Path, ours: str, zoo: str) -> None:
    afresh = {f'{layer}.{kind}': n for layer, n in AFRESH[ours, zoo].items() for kind in ('weight', 'bias')}
    model = built(Config.fromfile(REPO / 'configs/_base_/models' / ours).model)
    before = {name: model.state_dict()[name].clone() for name in afresh}
    (tmp_path / 'zoo.py').write_text(f'_base_ = {zoo!r}\n')
    checkpoint = built(Config.fromfile(tmp_path / 'zoo.py').model).state_dict()
    (table,) = load(checkpoint, model)
    for line, (name, (theirs, own)) in zip(table.splitlines()[2:], afresh.items(), strict=True):
        assert re.match(rf'  starts afresh     {name} \({theirs},.*\) ≠ \({own},.*\), one row a class$', line)
    assert table.splitlines()[1].split() == ['loaded', str(len(checkpoint) - len(afresh)), 'tensors']
    load_state_dict(model, checkpoint, strict=False, logger='silent')  # what mmengine does after the hook
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name in afresh else checkpoint[name]), name


def small_model(classes: int = 2, width: int = 16) -> nn.Module:
    head = nn.ModuleDict({'fc_cls': nn.Linear(width, classes + 1), 'fc_reg': nn.Linear(width, 4 * classes)})
    head.num_classes = classes
    return nn.ModuleDict({'backbone': nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width)), 'head': head})


def load(state: dict[str, Tensor], model: nn.Module, allow: tuple[str, ...] = (), resume: bool = False) -> list[str]:
    """What the hook says."""
    lines: list[str] = []
    logger = SimpleNamespace(info=lines.append)
    runner: Any = SimpleNamespace(model=model, _load_from='zoo.pth', _resume=resume, logger=logger)
    PretrainedReportHook(allow).after_load_checkpoint(runner, {'state_dict': state})
    return lines


def test_weights_of_the_same_classes_are_loaded_completely_but_for_batch_counters_of_old() -> None:
    state = {f'module.{name}': value for name, value in small_model().state_dict().items()}
    del state['module.backbone.1.num_batches_tracked']
    (table,) = load(state, small_model())
    assert '10 tensors' in table
    assert 'afresh' not in table


@pytest.mark.parametrize(
    ('name', 'tensor', 'message'),
    [
        ('backbone.0.weight', None, 'is missing from the checkpoint'),
        ('neck.weight', torch.ones(1), 'is not in the model'),
        ('backbone.0.weight', torch.ones(32, 3), r'\(32, 3\) ≠ \(16, 3\)'),
        ('head.fc_cls.weight', torch.ones(81, 32), r'\(81, 32\) ≠ \(3, 16\)'),
        ('head.fc_reg.bias', None, 'is missing from the checkpoint'),
    ],
)
def test_any_other_difference_is_an_error_that_says_how_to_allow_it(name: str, tensor: Any, message: str) -> None:
    state = {**small_model(80).state_dict(), name: tensor}
    if tensor is None:
        del state[name]
    with pytest.raises(InputError, match=f'{re.escape(name)} {message}.*in zoo.pth.*default_hooks.pretrained.allow='):
        load(state, small_model())
    (table,) = load(state, small_model(), allow=('backbone', 'neck', r'head\.fc'))
    assert 'differs, allowed  ' in table
    with pytest.raises(InputError, match='the model: other is not in the model '):
        load({**state, 'other': torch.ones(1)}, small_model(), allow=('backbone', 'neck', r'head\.fc'))


def test_a_resumed_run_must_fit_completely() -> None:
    assert load(small_model().state_dict(), small_model(), resume=True) == []
    with pytest.raises(InputError, match=r'head\.fc_cls.*Resume with the config'):
        load(small_model(80).state_dict(), small_model(), resume=True)


NAN = (float('nan'), 0, 0)
INFINITE = (1e30, 0, 0)  # its square is no float32


@pytest.mark.parametrize(('point', 'value'), [(NAN, 'nan'), (INFINITE, 'inf')])
def test_bad_loss_stops_before_the_weights_change_and_names_what_it_came_from(tmp_path: Path, point, value) -> None:
    clean = guarded_runner(tmp_path / 'clean', iterations=2)
    clean.train()
    runner = guarded_runner(tmp_path / 'bad', data=Points(changed={2: point}))
    with pytest.raises(InputError) as caught:
        runner.train()
    message = str(caught.value)
    for part in (f'at iteration 3: loss {value}, loss_fit {value}, loss_size 0.', 'images/2.jpg (30×20 px, 2 inst'):
        assert part in message
    assert 'default_hooks.loss_guard.on_bad_loss=skip' in message
    assert_equal(weights(runner), weights(clean))


@pytest.mark.parametrize(
    ('accumulated', 'bad', 'left_out'),
    [(1, [0, 3], [0, 3]), (2, [3], [2, 3])],
    ids=['alone', 'with the gradient that was gathered'],
)
def test_a_step_left_out_is_as_if_its_images_were_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture, accumulated: int, bad: list[int], left_out: list[int]
) -> None:
    options: dict[str, Any] = {'optim_wrapper.accumulative_counts': accumulated}
    options['loss_guard'] = {'on_bad_loss': 'skip'}
    runner = guarded_runner(tmp_path / 'skip', 8, data=Points(changed=dict.fromkeys(bad, NAN)), **options)
    runner.train()
    others = Points()
    others.points = others.points[[index for index in range(8) if index not in left_out]]
    clean = guarded_runner(tmp_path / 'clean', len(others), data=others, **options)
    clean.train()
    assert_equal(weights(runner), weights(clean))
    printed = capsys.readouterr().out
    for number, index in enumerate(bad, 1):
        assert f'at iteration {index + 1}' in printed
        assert f'images/{index}.jpg' in printed
        assert f'left out, {number} of at most 10' in printed
    log = next((tmp_path / 'skip').glob('*/vis_data/scalars.json')).read_text()
    assert 'NaN' not in log
    losses = {row['step']: row.get('loss') for row in map(json.loads, log.splitlines())}
    assert losses[4] == losses[3], 'the former loss stands for the one that is left out'


def test_too_many_steps_left_out_stop_the_run_and_other_hooks_see_their_losses(tmp_path: Path) -> None:
    """Losses that vanished made mmdet's own check of them fail with a KeyError."""
    seen: list[float] = []

    class Look(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            seen.append(float(outputs['loss']))

    data = Points(changed={1: NAN, 4: NAN, 5: NAN})
    runner = guarded_runner(tmp_path, data=data, loss_guard={'on_bad_loss': 'skip', 'max_skipped': 2}, hooks=[Look()])
    with pytest.raises(InputError, match=r'(?s)iteration 6.*after 2 steps were left out'):
        runner.train()
    assert [index for index, loss in enumerate(seen) if math.isnan(loss)] == [1, 4]


def validating_config(model: str, root: Path, work_dir: Path) -> Config:
    """Four iterations, validated after two and after four."""
    config = tiny_config(root, work_dir, 4, model)
    config.train_cfg.val_interval = 2
    config.default_hooks.logger.interval = 1
    config.val_dataloader.dataset.pipeline[1].scale = (300, 240)  # not a multiple of 32, so that masks are padded
    return config


@pytest.fixture(scope='module', params=sorted(LEAVES))
def runner(request: pytest.FixtureRequest, minibench_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    config = validating_config(request.param, minibench_root, tmp_path_factory.mktemp(request.param))
    config.default_hooks.checkpoint = None  # nothing is trained
    return build_runner(config)


def losses_by_hand(runner: Runner, places: list[int]) -> dict[str, float]:
    """The means of what ``train_step`` would minimise, image by image, through mmdet's own interface."""
    model, dataset = runner.model.eval(), runner.val_dataloader.dataset
    rows = []
    for place in places:
        batch = pseudo_collate([dataset[place]])
        torch.manual_seed(0)
        with torch.no_grad():
            data = model.data_preprocessor(batch, training=True)
            rows.append(model.parse_losses(model.loss(data['inputs'], data['data_samples']))[1])
    return {f'val_loss/{name}': float(np.mean([row[name] for row in rows])) for name in rows[0] if 'loss' in name}


@pytest.mark.parametrize(
    ('max_images', 'empty', 'places'), [(200, None, [0, 1, 2]), (2, None, [0, 2]), (200, 1, [0, 2])]
)
def test_a_validation_logs_what_training_minimises(
    runner: Runner, max_images: int, empty: int | None, places: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On all images, on a few that stand for all, and where one has no instances and does not count."""
    dataset = runner.val_dataloader.dataset
    original, hook = dataset.get_data_info, next(h for h in runner.hooks if isinstance(h, ValidationLossHook))
    nothing = {'instances': []}
    monkeypatch.setattr(dataset, 'get_data_info', lambda idx: original(idx) | (nothing if idx == empty else {}))
    monkeypatch.setattr(hook, 'max_images', max_images)
    losses = {name: value for name, value in runner.val().items() if name.startswith('val_loss/')}
    assert losses == pytest.approx(losses_by_hand(runner, places), rel=1e-5)
    total = losses.pop('val_loss/loss')
    assert total == pytest.approx(sum(losses.values()), rel=1e-5)
    assert runner.message_hub.get_scalar('val/val_loss/loss').mean() == total, 'not averaged over validations'


@pytest.mark.slow
@pytest.mark.parametrize('model', sorted(LEAVES))
def test_training_is_the_same_with_and_without(model: str, minibench_root: Path, tmp_path: Path) -> None:
    weights, rows = {}, {}
    for is_on in (True, False):
        work_dir = tmp_path / str(is_on)
        config = validating_config(model, minibench_root, work_dir)
        config.default_hooks.validation_loss.enabled = is_on
        train(config)
        weights[is_on], rows[is_on] = load_weights(work_dir / 'iter_4.pth'), logged(work_dir)
    assert_equal(weights[True], weights[False])
    assert not any(name.startswith('val_loss/') for row in rows[False].values() for name in row)
    for step in (2, 4):
        components = {f'val_loss/{name}' for name in rows[True]['train', step] if 'loss' in name}
        assert {'coco/segm_mAP', *components} <= rows[True]['val', step].keys()


@pytest.mark.parametrize('pipeline', [['Resize', 'LoadAnnotations'], ['Resize']], ids=len)
def test_annotations_must_fit_the_image(pipeline: list[str], runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {'Resize': dict(scale=(80, 64)), 'LoadAnnotations': dict(with_bbox=True, with_mask=True)}
    chosen = [dict(type=name, **options[name]) for name in pipeline]
    pack = dict(type='PackDetInputs', meta_keys=('img_path', 'img_shape'))
    changed = Compose([dict(type='LoadImageFromFile'), *chosen, pack])
    monkeypatch.setattr(runner.val_dataloader.dataset, 'pipeline', changed)
    with pytest.raises(InputError, match=r'pipeline must load annotations, before it resizes, .*put LoadPolygons'):
        ValidationLossHook().before_train(runner)


def validate_share(config: Config, folder: Path) -> None:
    """Runs in every process."""
    with joined_processes(config, 'pytorch'):
        metrics = build_runner(config).val()
        losses = {name: value for name, value in metrics.items() if name.startswith('val_loss/')}
        (folder / f'{get_rank()}.json').write_text(json.dumps(losses))


@pytest.mark.slow
@pytest.mark.parametrize('model', LEAVES)
def test_two_processes_share_the_images(model: str, minibench_root: Path, tmp_path: Path) -> None:
    config = validating_config(model, minibench_root, tmp_path)
    assert in_processes(2, tmp_path, validate_share, config, tmp_path)
    first, second = (json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(2))
    assert first == second
    assert first['val_loss/loss'] > 0
    # Mask2Former's mask losses are normalised across processes, Mask R-CNN's are not. The third image has no partner:
    # the sampler repeats the first beside it.
    if model == 'mask_rcnn':
        assert first == pytest.approx(losses_by_hand(build_runner(config), [0, 1, 2, 0]), rel=1e-5)
