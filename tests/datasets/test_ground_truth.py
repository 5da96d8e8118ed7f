import coco_files
import numpy as np
import pytest
import torch
from pycocotools import mask as mask_api

from armbench_mmdet.datasets import ArmbenchDataset
from armbench_mmdet.datasets.ground_truth import GroundTruth, GroundTruthSource
from armbench_mmdet.evaluation import ArmbenchMetric
from armbench_mmdet.hooks.preflight import run_selftest
from armbench_mmdet.report.collect import read_evaluations
from armbench_mmdet.report.pictures import draw


def test_it_holds_what_the_file_holds(tmp_path):
    document = coco_files.random_document(0)
    truth = GroundTruthSource(str(coco_files.write_json(tmp_path / 'a.json', document))).load()
    given = GroundTruth.of(document)
    assert (truth.images, truth.categories) == (given.images, given.categories)
    rows = np.argsort(truth.image_ids, kind='stable'), np.argsort(given.image_ids, kind='stable')
    (*ours, own), (*theirs, other) = truth.take(rows[0])[2:], given.take(rows[1])[2:]
    assert [column.tolist() for column in ours] == [column.tolist() for column in theirs]
    assert list(own) == list(other)


@pytest.mark.parametrize(
    'segmentation', [None, [], [[1, 2, 3, 4]], {'size': [1, 1], 'counts': [1]}, [[1e9, 0, 1, 1, 0, 0]]]
)
def test_what_has_no_mask_cannot_be_scored(tmp_path, segmentation):
    document = coco_files.document()
    document['annotations'][1]['segmentation'] = segmentation
    truth = GroundTruthSource(str(coco_files.write_json(tmp_path / 'a.json', document))).load()
    assert truth.ids.tolist() == [1, 3]


def test_the_cache_folder_of_the_data_set_is_everyones(minibench_root, tmp_path, monkeypatch):
    monkeypatch.setenv('ARMBENCH_CACHE', str(tmp_path / 'default'))
    data_set = ArmbenchDataset(
        data_root=minibench_root,
        split='test',
        cache_dir=tmp_path / 'mine',
        test_mode=True,
        pipeline=[
            {'type': 'LoadImageFromFile'},
            {'type': 'mmdet.PackDetInputs', 'meta_keys': ('img_id', 'ori_shape')},
        ],
    )
    stem = str(tmp_path / 'results' / 'mix-object-tote_test')
    metric = ArmbenchMetric(result_file=f'{stem}.json')
    metric.dataset_meta = data_set.metainfo
    assert run_selftest(data_set, metric.ground_truth)
    metric.process({}, [exact_prediction(data_set.get_data_info(i)) for i in range(len(data_set))])
    assert metric.evaluate(len(data_set))['coco/segm_mAP'] == pytest.approx(1)
    (evaluation,), _ = read_evaluations(tmp_path / 'results')
    assert draw('run', evaluation)
    assert (tmp_path / 'mine').is_dir()
    assert not (tmp_path / 'default').exists()


def exact_prediction(record: dict) -> dict:
    """The ground truth of an image as a prediction."""
    size = (record['height'], record['width'])
    instances = record['instances']
    return {
        'img_id': record['img_id'],
        'ori_shape': size,
        'pred_instances': {
            'bboxes': torch.tensor([one['bbox'] for one in instances], dtype=torch.float64),
            'labels': torch.tensor([one['bbox_label'] for one in instances]),
            'scores': torch.ones(len(instances)),
            'masks': [mask_api.merge(mask_api.frPyObjects(one['mask'], *size)) for one in instances],
        },
    }
