"""The whole way on pictures: data set, predictions, metric, written COCO results, and pycocotools on those."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from armbench_mmdet.datasets import SUBSETS, ArmbenchDataset
from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.evaluation.result import result_table

SUMMARY = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR_1', 'AR_10', 'AR_100')


def blurred_truth(record: dict, rng: np.random.Generator) -> dict:
    """Predictions near the truth: shifted masks, wrong labels now and then, random scores."""
    height, width = record['height'], record['width']
    masks = []
    for instance in record['instances']:
        runs = mask_api.merge(mask_api.frPyObjects(instance['mask'], height, width))
        shift = np.float32([[1, 0, rng.integers(-3, 4)], [0, 1, rng.integers(-3, 4)]])
        masks.append(cv2.warpAffine(mask_api.decode(runs), shift, (width, height)) > 0)
    boxes = np.array([instance['bbox'] for instance in record['instances']]) + rng.normal(0, 2, (len(masks), 4))
    labels = np.array([instance['bbox_label'] for instance in record['instances']])
    labels = np.where(rng.random(len(labels)) < 0.1, 1 - labels, labels)
    instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32),
        labels=torch.tensor(labels),
        scores=torch.tensor(rng.random(len(labels)), dtype=torch.float32),
        masks=torch.tensor(np.stack(masks)),
    )
    return {'img_id': record['img_id'], 'ori_shape': (height, width), 'pred_instances': instances}


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_result_equals_pycocotools_on_the_written_files(iou_type: str, minibench_root: Path, tmp_path: Path) -> None:
    dataset = ArmbenchDataset(data_root=minibench_root, split='test', test_mode=True, pipeline=[])
    rng = np.random.default_rng(0)
    metric = ArmbenchMetric(coco_json_prefix=str(tmp_path / 'mix'), log_table=False)
    metric.dataset_meta = dataset.metainfo
    metric.process({}, [blurred_truth(dataset.get_data_info(i), rng) for i in range(len(dataset))])
    scores = metric.evaluate(len(dataset))

    # By hand, as a reviewer would: the published annotation file and the written results, nothing of ours.
    truth = COCO(str(minibench_root / 'mix-object-tote/test.json'))
    written = json.loads((tmp_path / f'mix.{iou_type}.json').read_text())
    assert all(('segmentation' in one) == (iou_type == 'segm') for one in written)
    peer = COCOeval(truth, truth.loadRes(written), iou_type)
    peer.evaluate()
    peer.accumulate()
    peer.summarize()
    expected = dict(zip(SUMMARY, peer.stats, strict=False))
    assert 0.05 < expected['mAP'] < 0.95
    for key, value in expected.items():
        ours = scores[f'coco/{iou_type}_{key}']
        assert (value == -1 and ours is None) or ours == pytest.approx(value, abs=1e-9), key


@pytest.mark.parametrize('subset', SUBSETS)
def test_the_truth_scores_one_with_and_without_totes(subset: str, minibench_root: Path) -> None:
    """In same-object no tote is annotated: predicting one is neither right nor wrong."""
    dataset = ArmbenchDataset(data_root=minibench_root, subset=subset, split='test', test_mode=True, pipeline=[])
    metric = ArmbenchMetric(log_table=False)
    metric.dataset_meta = dataset.metainfo
    has_totes = subset != SUBSETS[2]
    for record in map(dataset.get_data_info, range(len(dataset))):
        size = (record['height'], record['width'])
        rows = [(one['mask'], one['bbox'], one['bbox_label'], 0.9) for one in record['instances']]
        if not has_totes:
            rows.insert(0, ([[0, 0, 99, 0, 99, 99, 0, 99]], [0, 0, 99, 99], 0, 0.99))
        codes = [mask_api.merge(mask_api.frPyObjects(mask, *size)) for mask, *_ in rows]
        instances = InstanceData(
            bboxes=torch.tensor([box for _, box, *_ in rows], dtype=torch.float64),
            labels=torch.tensor([label for *_, label, _ in rows]),
            scores=torch.tensor([score for *_, score in rows]),
            masks=torch.tensor(np.stack([mask_api.decode(code) for code in codes])).bool(),
        )
        metric.process({}, [{'img_id': record['img_id'], 'ori_shape': size, 'pred_instances': instances}])
    scores = metric.evaluate(len(dataset))
    assert scores['coco/segm_mAP'] == scores['coco/segm_object_mAP'] == 1.0
    assert scores['coco/segm_tote_mAP'] == (1.0 if has_totes else None)
    assert metric.result.not_annotated == ([] if has_totes else ['tote'])
    assert ('no tote is annotated' in result_table(metric.result)) != has_totes
