"""Before a training: each fault of the self-test has its step, of pretrained weights only the class head may differ."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import load_state_dict
from torch import Tensor, nn

from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.datasets.armbench import MinibenchDataset
from armbench_mmdet.datasets.ground_truth import GroundTruth
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.hooks.preflight import PretrainedReportHook, run_selftest


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


MODEL_FILES = Path(__file__).resolve().parents[2] / 'configs/_base_/models'


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
    model = built(Config.fromfile(MODEL_FILES / ours).model)
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


class Head(nn.Module):
    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.num_classes = classes
        self.fc_cls = nn.Linear(width, classes + 1)
        self.fc_reg = nn.Linear(width, 4 * classes)


class Model(nn.Module):
    def __init__(self, classes: int = 2, width: int = 16) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))
        self.head = Head(classes, width)


def load(state: dict[str, Tensor], model: nn.Module, allow: tuple[str, ...] = (), resume: bool = False) -> list[str]:
    """What the hook says."""
    lines: list[str] = []
    logger = SimpleNamespace(info=lines.append)
    runner: Any = SimpleNamespace(model=model, _load_from='zoo.pth', _resume=resume, logger=logger)
    PretrainedReportHook(allow).after_load_checkpoint(runner, {'state_dict': state})
    return lines


def test_weights_of_the_same_classes_are_loaded_completely_but_for_batch_counters_of_old() -> None:
    state = {f'module.{name}': value for name, value in Model().state_dict().items()}
    del state['module.backbone.1.num_batches_tracked']
    (table,) = load(state, Model())
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
    state = {**Model(80).state_dict(), name: tensor}
    if tensor is None:
        del state[name]
    with pytest.raises(InputError, match=f'{re.escape(name)} {message}.*in zoo.pth.*default_hooks.pretrained.allow='):
        load(state, Model())
    (table,) = load(state, Model(), allow=('backbone', 'neck', r'head\.fc'))
    assert 'differs, allowed  ' in table
    with pytest.raises(InputError, match='the model: other is not in the model '):
        load({**state, 'other': torch.ones(1)}, Model(), allow=('backbone', 'neck', r'head\.fc'))


def test_a_resumed_run_must_fit_completely() -> None:
    assert load(Model().state_dict(), Model(), resume=True) == []
    with pytest.raises(InputError, match=r'head\.fc_cls.*Resume with the config'):
        load(Model(80).state_dict(), Model(), resume=True)
