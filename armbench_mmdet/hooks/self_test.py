"""Ground truth must score 1.0: a rehearsal of the evaluation with the right answers, before anything is trained.

A few images go the way that predictions go: the data set and its pipeline, the annotation loader that training uses,
mmdet's data samples, run-length masks, the metric. Whatever is lost on the way would be lost from every result too.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.registry import HOOKS, TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from pycocotools import mask as mask_api

from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.evaluation.protocol import MAX_DETS
from armbench_mmdet.masks.encode import RleMasks, encode_masks
from armbench_mmdet.masks.runs import run_lengths

LOAD_ANNOTATIONS = {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True}
CANDIDATES = 200
SURE_IOU = 1 - 1e-4  # boxes pass through float32


@HOOKS.register_module()
class MetricSelfTestHook(Hook):
    """Runs the self-test on the validation set before training starts; a second or two.

    Args:
        num_images: How many images to rehearse with.
        load_annotations: The transform that turns a data set record into boxes, labels and masks.
    """

    def __init__(self, num_images: int = 4, load_annotations: Mapping[str, Any] | None = None) -> None:
        self.num_images = num_images
        self.load_annotations = load_annotations

    def before_train(self, runner: Any) -> None:
        """Run it on the main process, if there is anything to validate with."""
        if not is_main_process() or runner.val_loop is None:
            return
        loop, start_s = runner.val_loop, time.perf_counter()
        for metric in loop.evaluator.metrics:
            if isinstance(metric, ArmbenchMetric):
                done = run_selftest(
                    loop.dataloader.dataset,
                    metric.ground_truth,
                    metric.iou_types,
                    self.num_images,
                    self.load_annotations,
                )
                print_log(f'metric self-test: {done} ({time.perf_counter() - start_s:.1f} s)', 'current')


class SelfTest(NamedTuple):
    """A self-test that was passed: how many images it used, what they score, and what the whole set can score."""

    images: int
    score: float
    attainable: float

    def __str__(self) -> str:
        """The sentence that says so."""
        text = f'ground truth of {self.images} images scores {self.score:.4g}' + ('.0' if self.score == 1 else '')
        if self.attainable == 1:
            return text
        return (
            f'{text}; no prediction of this set can score more than {self.attainable:.3f} mAP, for COCO counts '
            f'{MAX_DETS[-1]} instances of a class and image, and there are more in some'
        )


def run_selftest(
    dataset: Any,
    ground_truth: Mapping[str, Any],
    iou_types: Sequence[str] = ('bbox', 'segm'),
    num_images: int = 4,
    load_annotations: Mapping[str, Any] | None = None,
) -> SelfTest:
    """Score the ground truth of a few images as predictions.

    Args:
        dataset: The data set that is evaluated, with its pipeline.
        ground_truth: What the metric compares with, COCO format, categories in the order of the labels.
        iou_types: What must score 1.0.
        num_images: How many images at most.
        load_annotations: The transform that turns a data set record into boxes, labels and masks.

    Returns:
        What they score: 1.0, or the most that COCO's limit of detections leaves where images hold more instances.

    Raises:
        InputError: It is less; the message names the step that lost it.
    """
    loader = TRANSFORMS.build(dict(load_annotations or LOAD_ANNOTATIONS))
    truth: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in ground_truth['annotations']:
        if not annotation.get('iscrowd'):
            truth[annotation['image_id']].append(annotation)
    rows = _comparable_rows(dataset, truth, num_images)
    samples = [_as_prediction(dataset, row, loader) for row in rows]
    chosen = {sample.img_id for sample in samples}
    part = {
        **ground_truth,
        'images': [image for image in ground_truth['images'] if image['id'] in chosen],
        'annotations': [a for a in ground_truth['annotations'] if a['image_id'] in chosen],
    }
    sizes = {image['id']: (image['height'], image['width']) for image in part['images']}
    labels = {category['id']: label for label, category in enumerate(ground_truth['categories'])}
    for sample in samples:
        _check_steps(sample.pred_instances, truth[sample.img_id], labels, sizes[sample.img_id], sample)
    metric = ArmbenchMetric(ground_truth=part, metric=iou_types, log_table=False)
    evaluator = Evaluator([metric])
    evaluator.dataset_meta = {'classes': [category['name'] for category in ground_truth['categories']]}
    evaluator.process(samples, {})
    scores = metric.compute_metrics(metric.results)  # not evaluate: other processes take no part
    most = _attainable(truth, chosen)
    for iou_type in iou_types:
        score = scores[f'{iou_type}_mAP']
        if score is None or score < most - 1e-9:
            raise _failure('metric', f'{iou_type} mAP is {score}, though labels, boxes and masks are right', chosen)
    return SelfTest(len(samples), most, _attainable(truth, truth))


def _attainable(truth: Mapping[int, list[dict[str, Any]]], images: Iterable[int]) -> float:
    """The mAP of perfect predictions: 1.0, but that so many of a class and image count and no more."""
    counted: Counter[int] = Counter()
    there: Counter[int] = Counter()
    for image in images:
        for category, count in Counter(annotation['category_id'] for annotation in truth[image]).items():
            counted[category] += min(count, MAX_DETS[-1])
            there[category] += count
    thresholds = np.linspace(0, 1, 101)  # of recall; precision is 1 up to the recall that can be reached, then 0
    reached = [np.mean(thresholds <= counted[one] / there[one]) for one in there]
    return float(np.mean(reached)) if reached else 1.0


def _comparable_rows(dataset: Any, truth: Mapping[int, list[dict[str, Any]]], num_images: int) -> list[int]:
    """Images of which the data set left out nothing that is scored; it may leave out, say, boxes under a pixel."""
    rows, seen = [], []
    for row in range(min(len(dataset), CANDIDATES)):
        record = dataset.get_data_info(row)
        instances = [one for one in record['instances'] if not one['ignore_flag']]
        wanted = truth.get(record['img_id'], [])
        seen.append(f'{len(instances)} of {len(wanted)}')
        if instances and len(instances) == len(wanted):
            rows.append(row)
        if len(rows) == num_images:
            break
    if not rows:
        raise InputError(
            'metric self-test: the data set must give every instance of the ground truth for at least one image, got '
            f'{", ".join(seen[:5]) or "no images"}; check its ann_file and classes'
        )
    return rows


def _as_prediction(dataset: Any, row: int, loader: Any) -> DetDataSample:
    """A data sample whose predictions are the image's ground truth, as the data set tells it."""
    loaded = dataset[row]['data_samples']
    record = loader({**dataset.get_data_info(row), 'ori_shape': loaded.ori_shape, 'img_shape': loaded.ori_shape})
    kept = np.flatnonzero(~np.asarray(record['gt_ignore_flags'], bool))
    boxes = record['gt_bboxes']
    boxes = torch.as_tensor(boxes.tensor if hasattr(boxes, 'tensor') else boxes)[kept]
    masks = record['gt_masks'].to_ndarray()[kept]
    sample = DetDataSample(metainfo={'img_id': record['img_id'], 'ori_shape': tuple(loaded.ori_shape[:2])})
    sample.pred_instances = InstanceData(
        bboxes=boxes,
        labels=torch.as_tensor(np.asarray(record['gt_bboxes_labels'])[kept]),
        scores=torch.ones(len(kept)),
        masks=RleMasks(encode_masks(masks), *masks.shape[1:]),
    )
    return sample


def _check_steps(
    instances: InstanceData,
    truth: list[dict[str, Any]],
    labels: Mapping[int, int],
    size: tuple[int, int],
    sample: DetDataSample,
) -> None:
    """Hold labels, image size, boxes and masks against the ground truth, and name the first that is off."""
    image = {sample.img_id}
    wanted = np.array([labels[annotation['category_id']] for annotation in truth])
    got = instances.labels.numpy()
    if Counter(wanted.tolist()) != Counter(got.tolist()):
        raise _failure('labels', f'{sorted(got.tolist())} instead of {sorted(wanted.tolist())}', image)
    if (instances.masks.height, instances.masks.width) != size or sample.ori_shape != size:
        detail = f'{sample.ori_shape} (height, width) instead of {size}, the size in the annotation file'
        raise _failure('image size', detail, image)
    boxes = instances.bboxes.numpy().astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    overlaps = {
        'boxes': mask_api.iou(boxes, np.array([a['bbox'] for a in truth], np.float64), [0] * len(truth)),
        'masks': mask_api.iou(
            instances.masks.rles, [run_lengths(a['segmentation'], *size) for a in truth], [0] * len(truth)
        ),
    }
    same_label = got[:, None] == wanted[None]
    for step, ious in overlaps.items():
        best = np.where(same_label, ious, 0).max(0)
        if best.min() < SURE_IOU:
            worst = int(best.argmin())
            detail = f'annotation {truth[worst]["id"]} is met with an IoU of {best[worst]:.3f} only'
            raise _failure(step, detail, image)


def _failure(step: str, detail: str, images: set[int]) -> InputError:
    return InputError(
        f'metric self-test: ground truth must score 1.0 against itself, lost at {step}: {detail} '
        f'(image {", ".join(str(image) for image in sorted(images))}); no result of this configuration can be trusted'
    )
