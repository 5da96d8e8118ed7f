"""The self-test passes on a sound path and names the step of each injected fault."""

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmdet.registry import TRANSFORMS

from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.datasets.armbench import MinibenchDataset
from armbench_mmdet.datasets.ground_truth import GroundTruth
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.hooks.preflight import MetricSelfTestHook, run_selftest


@pytest.fixture
def sound(minibench_root: Path) -> tuple[MinibenchDataset, GroundTruth]:
    """Four images, and their ground truth."""
    pipeline = [TRANSFORMS.build({'type': name}) for name in ('LoadImageFromFile', 'PackDetInputs')]
    place = {'subset': SUBSETS[0], 'split': 'test', 'data_root': minibench_root}
    dataset = MinibenchDataset(**place, pipeline=pipeline, test_mode=True)
    return dataset, dataset.ground_truth.load()


def change(dataset: MinibenchDataset, fault: Callable[[int, dict], object]) -> None:
    """Change the records of a data set, by their place in it."""
    original = dataset.get_data_info

    def changed(row: int) -> dict[str, Any]:
        record = original(row)
        fault(row, record)
        return record

    dataset.get_data_info = changed


def test_a_sound_path_scores_one(sound):
    assert run_selftest(*sound) == 'ground truth of 4 images scores 1.0'


def test_images_of_which_not_everything_is_scored_are_left_out(sound: Any) -> None:
    dataset, document = sound[0], json.loads(Path(sound[0].ann_file).read_text())
    crowd = next(one for one in document['annotations'] if one['image_id'] == dataset.get_data_info(2)['img_id'])
    crowd['iscrowd'] = 1

    def fault(row: int, record: dict) -> None:
        if row == 0:
            del record['instances'][0]
        elif row == 2:
            record['instances'][0]['ignore_flag'] = 1

    change(dataset, fault)
    assert run_selftest(dataset, GroundTruth.of(document)) == 'ground truth of 3 images scores 1.0'


def shift_label(record: dict, instance: dict) -> None:
    instance['bbox_label'] = (instance['bbox_label'] + 1) % 2


def rectangle(record: dict, instance: dict) -> None:
    x0, y0, x1, y1 = instance['bbox']
    instance['mask'] = [[x0, y0, x1, y0, x1, y1, x0, y1]]


def swap_box_axes(record: dict, instance: dict) -> None:
    x0, y0, x1, y1 = instance['bbox']
    instance['bbox'] = [y0, x0, y1, x1]


def wrong_size(record: dict, instance: dict) -> None:
    other = Path(record['img_path']).parents[2] / SUBSETS[2] / 'images'
    record['img_path'] = str(next(other.iterdir()))


FAULTS = {
    shift_label: 'lost at labels',
    rectangle: 'lost at masks',
    wrong_size: r'lost at image size: \(118, 160\)',
    swap_box_axes: 'lost at boxes',
}


def inject(fault: Callable[[dict, dict], object], dataset: MinibenchDataset) -> None:
    def every(row: int, record: dict) -> None:
        for instance in list(record['instances']):
            fault(record, instance)

    change(dataset, every)


@pytest.mark.parametrize(('fault', 'message'), FAULTS.items(), ids=lambda value: getattr(value, '__name__', ''))
def test_each_injected_fault_is_caught_at_its_step(sound, fault, message):
    inject(fault, sound[0])
    with pytest.raises(InputError, match=message):
        run_selftest(*sound)


def test_a_fault_behind_all_checked_steps_is_caught_by_the_score(sound, monkeypatch):
    process = ArmbenchMetric.process
    monkeypatch.setattr(ArmbenchMetric, 'process', lambda metric, batch, samples: process(metric, batch, samples[1:]))
    with pytest.raises(InputError, match='lost at metric: bbox mAP is 0'):
        run_selftest(*sound)


def test_the_hook_stops_training(sound: Any) -> None:
    inject(shift_label, sound[0])
    evaluator = types.SimpleNamespace(metrics=[ArmbenchMetric(ground_truth=sound[1])])
    loop = types.SimpleNamespace(dataloader=types.SimpleNamespace(dataset=sound[0]), evaluator=evaluator)
    with pytest.raises(InputError, match='lost at labels'):
        MetricSelfTestHook().before_train(types.SimpleNamespace(val_loop=loop))
