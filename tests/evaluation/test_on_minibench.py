"""The whole way on pictures: data set, predictions, metric, written COCO results, and pycocotools on those."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from armbench_mmdet.datasets import SUBSETS, ArmbenchDataset
from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.evaluation.result import SUMMARY_KEYS, result_table


def evaluated(
    root: Path, subset: str, rng: np.random.Generator | None = None, more: tuple = (), **options: Any
) -> tuple[dict[str, Any], ArmbenchMetric]:
    """The truth as predictions, with a generator moved and with some wrong labels; and more of them in each image."""
    dataset = ArmbenchDataset(data_root=root, subset=subset, split='test', test_mode=True, pipeline=[])
    metric = ArmbenchMetric(log_table=False, **options)
    metric.dataset_meta = dataset.metainfo
    for record in map(dataset.get_data_info, range(len(dataset))):
        size = (record['height'], record['width'])
        rows = [*more, *((one['mask'], one['bbox'], one['bbox_label'], 0.9) for one in record['instances'])]
        masks, boxes, labels, scores = map(list, zip(*rows, strict=True))
        bitmaps = [mask_api.decode(mask_api.merge(mask_api.frPyObjects(mask, *size))) for mask in masks]
        if rng is not None:
            bitmaps = [np.roll(bitmap, tuple(rng.integers(-3, 4, 2)), (0, 1)) for bitmap in bitmaps]
            boxes = boxes + rng.normal(0, 2, (len(boxes), 4))
            labels = np.where(rng.random(len(labels)) < 0.1, 1 - np.array(labels), labels)
            scores = rng.random(len(labels))
        instances = InstanceData(
            bboxes=torch.as_tensor(np.array(boxes), dtype=torch.float64),
            labels=torch.as_tensor(labels),
            scores=torch.as_tensor(scores),
            masks=torch.as_tensor(np.stack(bitmaps)).bool(),
        )
        metric.process({}, [{'img_id': record['img_id'], 'ori_shape': size, 'pred_instances': instances}])
    return metric.evaluate(len(dataset)), metric


def test_result_equals_pycocotools_on_the_written_files(minibench_root: Path, tmp_path: Path) -> None:
    scores, _ = evaluated(minibench_root, SUBSETS[0], np.random.default_rng(0), result_file=str(tmp_path / 'mix.json'))
    # By hand, as a reviewer would: the published annotation file and the written results, nothing of ours.
    truth = COCO(str(minibench_root / SUBSETS[0] / 'test.json'))
    for iou_type in ('bbox', 'segm'):
        written = json.loads((tmp_path / f'mix.{iou_type}.json').read_text())
        assert all(('segmentation' in one) == (iou_type == 'segm') for one in written)
        peer = COCOeval(truth, truth.loadRes(written), iou_type)
        peer.evaluate()
        peer.accumulate()
        peer.summarize()
        assert 0.05 < peer.stats[0] < 0.95
        for key, value in zip(SUMMARY_KEYS, peer.stats, strict=False):
            ours = scores[f'coco/{iou_type}_{key}']
            assert (value == -1 and ours is None) or ours == pytest.approx(value, abs=1e-9), key


@pytest.mark.parametrize('subset', SUBSETS)
def test_the_truth_scores_one_with_and_without_totes(subset: str, minibench_root: Path) -> None:
    """In same-object no tote is annotated: predicting one is neither right nor wrong."""
    has_totes = subset != SUBSETS[2]
    more = () if has_totes else (([[0, 0, 99, 0, 99, 99, 0, 99]], [0, 0, 99, 99], 0, 0.99),)
    scores, metric = evaluated(minibench_root, subset, more=more)
    assert scores['coco/segm_mAP'] == scores['coco/segm_object_mAP'] == 1.0
    assert scores['coco/segm_tote_mAP'] == (1.0 if has_totes else None)
    assert metric.result.not_annotated == ([] if has_totes else ['tote'])
    assert ('no tote is annotated' in result_table(metric.result)) != has_totes
