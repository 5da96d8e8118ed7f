"""Checks before a training: the weights it starts from fit the model, and ground truth scores 1.0."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from pycocotools import mask as mask_api
from torch import nn

from armbench_mmdet.datasets.ground_truth import GroundTruth
from armbench_mmdet.engine.checkpoints import compare_weights, described
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.evaluation.protocol import MAX_DETS
from armbench_mmdet.masks.encode import encode_masks
from armbench_mmdet.masks.runs import run_lengths
from armbench_mmdet.transforms.loading import LoadPolygons


@HOOKS.register_module()
class PretrainedReportHook(Hook):
    """Prints what ``load_from`` gives the model, and stops if it is not what fine-tuning should give.

    For another number of classes the class head starts afresh: tensors of a module with ``num_classes`` that have a
    row (or four: box coordinates) for each class, perhaps one more for the background, and else the checkpoint's
    shape. Anything else that is missing, left over or of another shape is an error. A run that resumes must find every
    tensor. Without ``load_from`` the hook does nothing.

    Args:
        allow: Regular expressions of tensors that may differ all the same, searched for in their names.
    """

    priority = 'VERY_HIGH'

    def __init__(self, allow: Sequence[str] = ()) -> None:
        self.allow = [re.compile(pattern) for pattern in ([allow] if isinstance(allow, str) else allow)]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare the checkpoint with the model before mmengine copies what fits.

        Raises:
            InputError: Tensors differ that must not; the message names them and the way to allow them.
        """
        model: nn.Module = getattr(runner.model, 'module', runner.model)
        state, ours = checkpoint.get('state_dict', checkpoint), model.state_dict()
        state = {name.removeprefix('module.'): value for name, value in state.items()}
        differences = {
            name: what
            for name, what in compare_weights(state, ours).items()
            # Checkpoints from before PyTorch 0.4.1 lack these, which do not change what a frozen model computes.
            if name in state or not name.endswith('num_batches_tracked')
        }
        source, rows, refused = runner._load_from or 'the latest checkpoint', [], {}
        for name, what in differences.items():
            if not runner._resume and '≠' in what and _has_class_rows(model, name, state[name].shape, ours[name].shape):
                rows.append(f'  starts afresh     {name} {what}, one row a class')
            elif any(pattern.search(name) for pattern in self.allow):
                rows.append(f'  differs, allowed  {name} {what}')
            else:
                refused[name] = what
        if refused:
            pattern = '^' + re.escape(next(iter(refused))) + '$'
            remedy = (
                'Resume with the config the run was started with.'
                if runner._resume
                else 'If that is wanted, set default_hooks.pretrained.allow='
                f'[{pattern!r}{", …" if len(refused) > 1 else ""}] (patterns of their names).'
            )
            raise InputError(f'The checkpoint does not fit the model: {described(refused)} (in {source}). {remedy}')
        if not runner._resume:
            loaded = sum(name in state and name not in differences for name in ours)
            runner.logger.info('\n'.join([f'weights from {source}', f'  loaded            {loaded} tensors', *rows]))


def _has_class_rows(model: nn.Module, name: str, theirs: torch.Size, ours: torch.Size) -> bool:
    """Whether a tensor has a row for every class of the model, and as its other sizes those of the checkpoint."""
    path = name.split('.')[:-1]
    inside_out = (model.get_submodule('.'.join(path[:depth])) for depth in range(len(path), 0, -1))
    counts = (getattr(module, 'num_classes', None) for module in inside_out)
    classes = next((count for count in counts if isinstance(count, int)), None)
    if classes is None or len(theirs) != len(ours) or not ours:
        return False
    return ours[0] in (classes, classes + 1, 4 * classes, 4 * classes + 1) and theirs[1:] == ours[1:]


CANDIDATES, CHOSEN = 200, 4  # images looked at and images scored, at most
SURE_IOU = 1 - 1e-4  # boxes pass through float32


@HOOKS.register_module()
class MetricSelfTestHook(Hook):
    """Runs the self-test on the validation set before training starts; a second or two.

    A few images go the way that predictions go: the data set and its pipeline, the annotation loader that training
    uses, run-length masks, the metric. Whatever is lost on the way would be lost from every result too.
    """

    def before_train(self, runner: Any) -> None:
        """Run it on the main process, if there is anything to validate with."""
        if not is_main_process() or runner.val_loop is None:
            return
        for metric in runner.val_loop.evaluator.metrics:
            if isinstance(metric, ArmbenchMetric):
                done = run_selftest(runner.val_loop.dataloader.dataset, metric.ground_truth, metric.iou_types)
                print_log(f'metric self-test: {done}', 'current')


def run_selftest(dataset: Any, ground_truth: GroundTruth, iou_types: Sequence[str] = ('bbox', 'segm')) -> str:
    """Score the ground truth of a few images as predictions; says that it scored 1.0.

    Raises:
        InputError: It scores less; the message names the step that lost it.
    """
    truth = ground_truth.take(~ground_truth.crowds)
    rows = list(islice(_comparable_rows(dataset, truth), CHOSEN))
    if not rows:
        raise InputError(
            'metric self-test: the data set must give every instance of the ground truth, at most '
            f'{MAX_DETS[-1]} of a class, for one of its first {CANDIDATES} images, got none such among its '
            f'{len(dataset)}; check its ann_file and classes'
        )
    samples = [_as_prediction(dataset, row) for row in rows]
    for sample in samples:
        _check_steps(sample, truth.of_images([sample['img_id']]))
    chosen = {sample['img_id'] for sample in samples}
    metric = ArmbenchMetric(ground_truth=ground_truth.of_images(chosen), metric=iou_types, log_table=False)
    metric.dataset_meta = {'classes': list(ground_truth.categories.values())}
    metric.process({}, samples)
    scores = metric.compute_metrics(metric.results)  # not evaluate: other processes take no part
    for iou_type in iou_types:
        score = scores[f'{iou_type}_mAP']
        if score is None or score < 1 - 1e-9:
            raise _failure('metric', f'{iou_type} mAP is {score}, though labels, boxes and masks are right', chosen)
    return f'ground truth of {len(samples)} images scores 1.0'


def _comparable_rows(dataset: Any, truth: GroundTruth) -> Iterator[int]:
    """Images of which everything is scored: the data set may leave out, say, boxes under a pixel, and COCO those of a
    class beyond a hundred.
    """
    for row in range(min(len(dataset), CANDIDATES)):
        record = dataset.get_data_info(row)
        given = sum(not one['ignore_flag'] for one in record['instances'])
        wanted = truth.category_ids[truth.image_ids == record['img_id']]
        if 0 < given == len(wanted) and np.unique(wanted, return_counts=True)[1].max() <= MAX_DETS[-1]:
            yield row


def _as_prediction(dataset: Any, row: int) -> dict[str, Any]:
    """An image's ground truth, as the data set and the loader of annotations tell it, in the form of a prediction."""
    record: Any = LoadPolygons()(dataset.get_data_info(row))
    kept = np.flatnonzero(~record['gt_ignore_flags'])
    instances = {
        'bboxes': record['gt_bboxes'].numpy()[kept].astype(np.float64),
        'labels': record['gt_bboxes_labels'][kept],
        'scores': np.ones(len(kept)),
        'masks': encode_masks(record['gt_masks'].to_ndarray()[kept]),
    }
    size = tuple(dataset[row]['data_samples'].ori_shape[:2])
    return {'img_id': record['img_id'], 'ori_shape': size, 'pred_instances': instances}


def _check_steps(sample: dict[str, Any], truth: GroundTruth) -> None:
    """Hold labels, image size, boxes and masks against the image's ground truth, and name the first that is off."""
    found, image = sample['pred_instances'], truth.images[sample['img_id']]
    size, numbers = (image.height, image.width), list(truth.categories)
    labels = np.array([numbers.index(number) for number in truth.category_ids])
    if sorted(found['labels']) != sorted(labels):
        detail = f'{sorted(found["labels"].tolist())} instead of {sorted(labels.tolist())}'
        raise _failure('labels', detail, {image.id})
    if sample['ori_shape'] != size:
        detail = f'{sample["ori_shape"]} (height, width) instead of {size}, the size in the annotation file'
        raise _failure('image size', detail, {image.id})
    x1, y1, x2, y2 = found['bboxes'].T
    boxes = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)
    masks = [run_lengths(mask, *size) for mask in truth.masks]
    for step, ours, theirs in (('boxes', boxes, truth.boxes), ('masks', found['masks'], masks)):
        ious = mask_api.iou(ours, theirs, [0] * len(masks))
        best = np.where(found['labels'][:, None] == labels, ious, 0).max(0)
        if best.min() < SURE_IOU:
            worst = int(best.argmin())
            detail = f'annotation {truth.ids[worst]} is met with an IoU of {best[worst]:.3f} only'
            raise _failure(step, detail, {image.id})


def _failure(step: str, detail: str, images: set[int]) -> InputError:
    return InputError(
        f'metric self-test: ground truth must score 1.0 against itself, lost at {step}: {detail} '
        f'(image {", ".join(map(str, sorted(images)))}); no result of this configuration can be trusted'
    )
