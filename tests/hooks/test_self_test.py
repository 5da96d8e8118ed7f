"""The self-test passes on a sound path and names the step of each injected fault."""

import copy
import types
from typing import Any

import numpy as np
import pytest
from mmdet.structures import DetDataSample

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.hooks.self_test import MetricSelfTestHook, run_selftest

HEIGHT, WIDTH = 90, 140


class FewImages:
    """Records as mmdet's CocoDataset gives them, and the one thing of a test pipeline that matters here."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def get_data_info(self, row: int) -> dict[str, Any]:
        return copy.deepcopy(self.records[row])

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {'data_samples': DetDataSample(metainfo={'ori_shape': self.records[row]['loaded_shape']})}


def slanted_polygon(rng: np.random.Generator) -> list[float]:
    cx, cy = rng.uniform(30, WIDTH - 30), rng.uniform(25, HEIGHT - 25)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
    radii = rng.uniform(10, 20, 7)
    points = np.stack([cx + 1.4 * radii * np.cos(angles), cy + radii * np.sin(angles)], 1)
    return points.round(2).ravel().tolist()


def annotate(truth: dict[str, Any], record: dict[str, Any], polygon: list[float], label: int, crowd: int = 0) -> None:
    x, y = np.array(polygon[::2]), np.array(polygon[1::2])
    box = [float(v) for v in (x.min(), y.min(), np.ptp(x), np.ptp(y))]
    annotation = {'id': len(truth['annotations']) + 1, 'image_id': record['img_id'], 'category_id': label + 1}
    annotation |= {'bbox': box, 'area': box[2] * box[3], 'segmentation': [polygon], 'iscrowd': crowd}
    truth['annotations'].append(annotation)
    corners = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    record['instances'].append({'bbox': corners, 'bbox_label': label, 'mask': [polygon], 'ignore_flag': crowd})


@pytest.fixture
def sound() -> tuple[FewImages, dict[str, Any]]:
    """Three images, each with a tote, three objects and a crowd."""
    rng = np.random.default_rng(0)
    names = [{'id': 1, 'name': 'tote'}, {'id': 2, 'name': 'object'}]
    truth: dict[str, Any] = {'images': [], 'annotations': [], 'categories': names}
    records = []
    for image_id in (7, 0, 3):
        truth['images'].append({'id': image_id, 'height': HEIGHT, 'width': WIDTH})
        record: dict[str, Any] = {'img_id': image_id, 'height': HEIGHT, 'width': WIDTH, 'instances': []}
        record['loaded_shape'] = (HEIGHT, WIDTH)
        for number in range(5):
            annotate(truth, record, slanted_polygon(rng), int(number > 0), int(number == 4))
        records.append(record)
    return FewImages(records), truth


def test_a_sound_path_scores_one(sound):
    assert run_selftest(*sound) == 'ground truth of 3 images scores 1.0'
    assert run_selftest(*sound, ('bbox',), num_images=1) == 'ground truth of 1 images scores 1.0'


def test_images_of_which_not_everything_is_scored_are_left_out(sound: Any) -> None:
    dataset, truth = sound
    del dataset.records[0]['instances'][0]
    for number in range(98):  # beside three: COCO counts a hundred
        x, y = number % 20 * 7, number // 20 * 9
        annotate(truth, dataset.records[1], [x, y, x + 6, y, x + 6, y + 8, x, y + 8], 1)
    assert run_selftest(dataset, truth) == 'ground truth of 1 images scores 1.0'


def shift_label(record: dict, instance: dict) -> None:
    instance['bbox_label'] = (instance['bbox_label'] + 1) % 2


def rectangle(record: dict, instance: dict) -> None:
    x0, y0, x1, y1 = instance['bbox']
    instance['mask'] = [[x0, y0, x1, y0, x1, y1, x0, y1]]


def swap_mask_axes(record: dict, instance: dict) -> None:
    instance['mask'] = [np.array(instance['mask'][0]).reshape(-1, 2)[:, ::-1].ravel().tolist()]


def swap_box_axes(record: dict, instance: dict) -> None:
    x0, y0, x1, y1 = instance['bbox']
    instance['bbox'] = [y0, x0, y1, x1]


def wrong_size(record: dict, instance: dict) -> None:
    record['loaded_shape'] = (WIDTH, HEIGHT)


def lost_instances(record: dict, instance: dict) -> None:
    record['instances'] = record['instances'][1:]


FAULTS = {
    shift_label: 'lost at labels',
    rectangle: 'lost at masks',
    wrong_size: r'lost at image size: \(140, 90\)',
    swap_mask_axes: 'lost at masks',
    swap_box_axes: 'lost at boxes',
    lost_instances: 'the data set must give every instance',
}


def inject(fault, dataset: FewImages) -> None:
    for record in dataset.records:
        for instance in record['instances']:
            fault(record, instance)


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


def test_the_hook_stops_training(sound):
    dataset, truth = sound
    evaluator = types.SimpleNamespace(metrics=[ArmbenchMetric(ground_truth=truth)])
    loop = types.SimpleNamespace(dataloader=types.SimpleNamespace(dataset=dataset), evaluator=evaluator)
    runner = types.SimpleNamespace(val_loop=loop)
    MetricSelfTestHook().before_train(runner)
    inject(shift_label, dataset)
    with pytest.raises(InputError, match='lost at labels'):
        MetricSelfTestHook().before_train(runner)
    MetricSelfTestHook().before_train(types.SimpleNamespace(val_loop=None))
