"""The self-test passes on a sound path and names the step of each injected fault."""

import json
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
from armbench_mmdet.hooks.preflight import run_selftest


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


def shift_labels(row: int, record: dict) -> None:
    for instance in record['instances']:
        instance['bbox_label'] = (instance['bbox_label'] + 1) % 2


def swap_box_axes(row: int, record: dict) -> None:
    for instance in record['instances']:
        x0, y0, x1, y1 = instance['bbox']
        instance['bbox'] = [y0, x0, y1, x1]


def fill_boxes(row: int, record: dict) -> None:
    for instance in record['instances']:
        x0, y0, x1, y1 = instance['bbox']
        instance['mask'] = [[x0, y0, x1, y0, x1, y1, x0, y1]]


def show_photos_of_another_size(row: int, record: dict) -> None:
    other = Path(record['img_path']).parents[2] / SUBSETS[2] / 'images'
    record['img_path'] = str(next(other.iterdir()))


@pytest.mark.parametrize(
    ('fault', 'message'),
    [
        (shift_labels, 'lost at labels'),
        (swap_box_axes, 'lost at boxes'),
        (fill_boxes, 'lost at masks'),
        (show_photos_of_another_size, r'lost at image size: \(118, 160\)'),
    ],
)
def test_each_injected_fault_is_caught_at_its_step(sound: Any, fault: Callable, message: str) -> None:
    change(sound[0], fault)
    with pytest.raises(InputError, match=message):
        run_selftest(*sound)


def test_a_fault_behind_all_checked_steps_is_caught_by_the_score(sound: Any, monkeypatch) -> None:
    process = ArmbenchMetric.process
    monkeypatch.setattr(ArmbenchMetric, 'process', lambda metric, batch, samples: process(metric, batch, samples[1:]))
    with pytest.raises(InputError, match='lost at metric: bbox mAP is 0'):
        run_selftest(*sound)
