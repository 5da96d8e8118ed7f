"""``ArmbenchMetric``: COCO's protocol on ARMBench, with every known way to a silent wrong number refused."""

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from mmdet.registry import METRICS
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from armbench_mmdet.datasets.ground_truth import GroundTruth, GroundTruthSource
from armbench_mmdet.datasets.release import CLASSES
from armbench_mmdet.engine.distributed import gathered
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation import result
from armbench_mmdet.evaluation.anatomy import error_anatomy, operations, pick_scores, segmentation_errors
from armbench_mmdet.evaluation.matches import MatchTable, group_intervals, match_table, scores_of_type
from armbench_mmdet.evaluation.protocol import DENSITY_NAMES, IOU_TYPES, SCORE_THRESHOLD, Matching, Shapes
from armbench_mmdet.files import draft_of
from armbench_mmdet.masks.encode import encode_masks
from armbench_mmdet.run_folder import METRIC_PREFIX
from armbench_mmdet.system import hardware, installed_versions

try:
    import resource
except ImportError:  # not on every system; the peak is then unknown
    resource = None  # type: ignore[assignment]


@METRICS.register_module()
class ArmbenchMetric(BaseMetric):
    """COCO bbox and segm over all images of the ground truth.

    Ground truth comes from the data set's own file (its meta information carries a
    :class:`~armbench_mmdet.datasets.ground_truth.GroundTruthSource`), loaded once for the life of the metric. An image
    that was never processed counts as one without detections, and is reported; one that was processed twice, as
    samplers do to fill the last batch, counts once. One that the data set could not read (``corrupt_images='skip'``)
    has no detections, and is listed. Where a result file is written, masks are also scored by their boundaries.

    Logged keys, after the prefix ``coco/``: ``{bbox,segm}_{mAP,mAP_50,mAP_75,mAP_s,mAP_m,mAP_l,AR_1,AR_10,AR_100}``
    and the same for each class as ``segm_object_mAP``. A number without ground truth is None.

    Args:
        ground_truth: Instead of the data set's.
        metric: ``bbox``, ``segm`` or both.
        result_file: Where to write the result file and, beside it, COCO results (``.bbox.json``, ``.segm.json``) and
            the match tables that compare two runs; None writes nothing.
        identity: For the result file: ``config``, ``checkpoint``, ``seed``, ``data_fingerprint``, ``extra``.
        log_table: Whether to log the result as a table.
    """

    default_prefix = METRIC_PREFIX.rstrip('/')

    def __init__(
        self,
        ground_truth: GroundTruth | None = None,
        metric: str | Sequence[str] = IOU_TYPES,
        result_file: str | None = None,
        identity: Mapping[str, Any] | None = None,
        log_table: bool = True,
    ) -> None:
        super().__init__()
        self.iou_types = [metric] if isinstance(metric, str) else list(metric)
        if not self.iou_types or not set(self.iou_types) <= set(IOU_TYPES):
            raise InputError(f'metric must be some of {", ".join(IOU_TYPES)}, got {metric!r}')
        self.result_file = Path(result_file) if result_file else None
        self.identity = dict(identity or {})
        self.log_table = log_table
        self.complexity: dict[str, Any] = {}  # the model's parameters and gflops, for the result file
        self.result: result.Result | None = None  # the last evaluation
        self._given_truth = ground_truth

    @functools.cached_property
    def ground_truth(self) -> GroundTruth:
        """The ground truth of the data set's classes; loaded at first use."""
        truth = self._given_truth or self.source.load()
        return truth.of_classes((self.dataset_meta or {}).get('classes') or list(truth.categories.values()))

    @property
    def classes(self) -> list[str]:
        """The names of the classes, by label."""
        return list(self.ground_truth.categories.values())

    @property
    def source(self) -> GroundTruthSource:
        """The data set's own file.

        Raises:
            InputError: It names none, or there are several.
        """
        meta: Any = self.dataset_meta or {}
        is_one = not isinstance(meta, list) and len(meta.get('cumulative_sizes', ())) < 2
        if is_one and (source := GroundTruthSource.of(meta)):
            return source
        got = 'a data set of another type' if is_one else 'several, whose images may share ids: test them one by one'
        raise InputError(f'evaluated data must come from the one annotation file of an ArmbenchDataset, got {got}')

    def write_to(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Write results into a folder, named after the annotation file, and add to the identity."""
        self.result_file = folder / f'{self.source.subset}_{self.source.split}.json'
        self.identity |= identity

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Take predictions, one dict an image, see :func:`checked_prediction`.

        Raises:
            InputError: They are faulty, or of an image that the ground truth does not have.
        """
        for sample in data_samples:
            image = self.ground_truth.images.get(sample['img_id'])
            if image is None:
                raise InputError(f'image_id must be an image of the ground truth, got {sample["img_id"]}')
            sized = {**sample, 'ori_shape': (image.height, image.width)}
            prediction = checked_prediction(sized, len(self.classes), 'segm' in self.iou_types)
            if 'unreadable' in sample:
                prediction = {key: value if key == 'img_id' else value[:0] for key, value in prediction.items()}
                prediction['unreadable'] = str(sample['unreadable'])
            self.results.append(prediction)

    def evaluate(self, size: int) -> dict[str, float | None]:
        """Evaluate what all processes have processed of a data set of this length; the same in each, keys prefixed."""
        results = gathered(self.results, size)
        metrics: list[Any] = [None]
        if is_main_process():
            metrics = [{f'{self.prefix}/{key}': value for key, value in self.compute_metrics(results).items()}]
        broadcast_object_list(metrics)
        self.results.clear()
        return metrics[0]

    def compute_metrics(self, results: list) -> dict[str, float | None]:
        """Evaluate everything processed; see the class for the keys.

        Raises:
            InputError: No predictions at all.
        """
        if not results:
            raise InputError('predictions must be given for at least one image, got none; is the data loader empty?')
        predictions = list({one['img_id']: one for one in reversed(results)}.values())[::-1]
        detections = shapes_of(predictions, list(self.ground_truth.categories))
        digest, thresholds = self.identity.get('extra', {}).get('checkpoint_sha256'), dict[str, float]()
        if self.result_file and digest and not self.result_file.name.endswith('_val.json'):
            thresholds = result.val_thresholds(self.result_file.parent, digest)
        fields: dict[str, Any] = {}
        for iou_type in self.iou_types:
            is_across = iou_type == 'segm' and self.result_file is not None
            matching = Matching(self.ground_truth, detections, iou_type, is_across)
            for one in [matching.of_boundaries(), matching] if is_across else [matching]:
                table = match_table(one)
                fields[one.iou_type] = scores_of_type(one, table, self._written(one.iou_type, detections, table))
            if iou_type == 'segm':
                fields['segmentation_errors'] = segmentation_errors(matching)
                fields['picks'] = pick_scores(matching, CLASSES[-1], thresholds.get(CLASSES[-1], SCORE_THRESHOLD))
                fields['anatomy'] = error_anatomy(matching) if is_across else None
            if iou_type == 'segm' or 'segm' not in self.iou_types:
                fields['operation'] = operations(matching, table, thresholds)
        density = dict(zip(table.image_ids.tolist(), table.density.tolist(), strict=True))
        self.result = result.Result(
            schema_version=1,
            identity=self._full_identity(),
            classes=self.classes,
            images=self._count_images(predictions, repeated=len(results) - len(predictions)),
            detections=len(detections.scores),
            speed=speed_summary(predictions, density, **self.complexity),
            **fields,
        )
        if self.log_table:
            print_log('\n' + result.result_table(self.result), logger='current')
        if self.result_file:
            result.write_result(self.result_file, self.result)
        return {
            f'{iou_type}_{key}' if name == result.MEAN else f'{iou_type}_{name}_{key}': value
            for iou_type in self.iou_types
            for name, one in self.result.scores[iou_type].by_class.items()
            for key, value in one.numbers().items()
        }

    def _written(self, iou_type: str, detections: Shapes, table: MatchTable) -> dict[str, result.Interval] | None:
        """Write what lies beside the result file, and draw the intervals of the mAP; nothing where none is written."""
        if self.result_file is None:
            return None
        if iou_type in IOU_TYPES:
            write_coco_results(self.result_file.with_suffix(f'.{iou_type}.json'), detections, iou_type)
        table.save(result.matches_path(self.result_file, iou_type))
        return {name: result.Interval(low=one.low, high=one.high) for name, one in group_intervals([table]).items()}

    def logged_names(self) -> list[str]:
        """What :meth:`evaluate` gives, by name."""
        names, keys = ['', *(f'_{name}' for name in self.classes)], result.SUMMARY_KEYS
        return [f'{self.prefix}/{one}{name}_{key}' for one in self.iou_types for name in names for key in keys]

    def add_timing(self, stages_s: Mapping[str, float], images: int) -> None:
        """Note the times per image, by stage, of the last so many images that were processed."""
        for prediction in self.results[-images:]:
            prediction['stages_s'] = stages_s

    def _count_images(self, predictions: Sequence[Mapping[str, Any]], repeated: int) -> result.Images:
        total = len(self.ground_truth.images)
        unreadable = [prediction['unreadable'] for prediction in predictions if 'unreadable' in prediction]
        not_seen = total - len(predictions)
        if unreadable:
            about = f'{len(unreadable)} images could not be read, and count as images without detections:'
            print_log('\n  '.join([about, *unreadable]), logger='current', level=logging.WARNING)
        return result.Images(ground_truth=total, not_seen=not_seen, repeated=repeated, unreadable=unreadable)

    def _full_identity(self) -> result.Identity:
        source, known = GroundTruthSource.of(self.dataset_meta), dict(self.identity)
        if source:
            known = {'subset': source.subset, 'split': source.split, **known}
            known['extra'] = {**source.location(), **known.get('extra', {})}
        if source and self.result_file:
            known.setdefault('data_fingerprint', result.file_fingerprint(source.ann_file))
        return result.Identity(**{'versions': installed_versions(), **known})


def checked_prediction(sample: Mapping[str, Any], num_classes: int, with_masks: bool) -> dict[str, Any]:
    """The part of a data sample that is evaluated, on the CPU and without bitmaps.

    Args:
        sample: ``img_id``, ``ori_shape`` (H, W), and ``pred_instances`` with ``bboxes`` ``(N, 4)`` xyxy,
            ``scores`` ``(N,)``, ``labels`` ``(N,)`` and ``masks``: ``(N, H, W)`` bool or N RLE dicts.
        num_classes: Labels run from 0 to one less.
        with_masks: Whether there must be masks.

    Returns:
        ``img_id``, ``bboxes``, ``scores``, ``labels`` as arrays and, if wanted, ``masks`` as a list of RLE dicts.

    Raises:
        InputError: Labels out of range, numbers that are not finite, arrays of different lengths, no masks where
            masks are wanted, masks of another size than the image.
    """
    instances, image_id = sample['pred_instances'], int(sample['img_id'])
    where = f'in the predictions of image {image_id}'
    prediction: dict[str, Any] = {'img_id': image_id}
    for key in ('bboxes', 'scores', 'labels'):
        value = getattr(instances[key], 'tensor', instances[key])  # of mmdet's box structures
        prediction[key] = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        if not np.isfinite(prediction[key]).all():
            raise InputError(f'{key} must be finite, got NaN or infinity ({where})')
    labels = prediction['labels']
    if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
        raise InputError(
            f'labels must be from 0 to {num_classes - 1}, got {labels.min()} to {labels.max()} ({where}); '
            "check num_classes of the model's head"
        )
    if with_masks:
        if 'masks' not in instances:
            raise InputError(
                f'pred_instances must have masks to be evaluated as masks, got {sorted(instances.keys())} ({where}); '
                "a box is no mask: use a model with a mask head, or metric='bbox'"
            )
        prediction['masks'] = _run_lengths(instances['masks'])
        size = list(sample['ori_shape'][:2])
        wrong = [rle['size'] for rle in prediction['masks'] if rle['size'] != size]
        if wrong:
            raise InputError(f'mask size must be that of the image, {size} (height, width), got {wrong[0]} ({where})')
    lengths = {key: len(value) for key, value in prediction.items() if key != 'img_id'}
    if len(set(lengths.values())) > 1:
        raise InputError(f'pred_instances must have as many of each, got {lengths} ({where})')
    return prediction


def shapes_of(predictions: Sequence[Mapping[str, Any]], category_ids: Sequence[int | str]) -> Shapes:
    """Predictions of several images, at least one, as columns.

    Args:
        predictions: As :func:`checked_prediction` makes them.
        category_ids: The category of each label; with names in their place they can only be written.
    """
    labels, scores = (np.concatenate([one[key] for one in predictions]) for key in ('labels', 'scores'))
    image_ids = np.repeat([one['img_id'] for one in predictions], [len(one['labels']) for one in predictions])
    boxes = np.concatenate([one['bboxes'].reshape(-1, 4) for one in predictions]).astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    masks = [mask for one in predictions for mask in one.get('masks') or [None] * len(one['labels'])]
    return Shapes(image_ids, np.array(category_ids)[labels.astype(np.int64)], scores.astype(np.float64), boxes, masks)


def write_coco_results(path: Path, detections: Shapes, iou_type: str) -> None:
    """Write detections in COCO's results format, for any other evaluator to check.

    ``bbox`` gives results with a box, ``segm`` results with a mask and no box: with a box, COCO's loader would take the
    box's area for the mask's.
    """
    key, shapes = ('bbox', detections.boxes.tolist()) if iou_type == 'bbox' else ('segmentation', detections.masks)
    columns = (column.tolist() for column in detections[:3])
    names = ('image_id', 'category_id', 'score', key)
    rows = (dict(zip(names, row, strict=True)) for row in zip(*columns, shapes, strict=True))
    with draft_of(path) as draft, draft.open('wb') as file:
        for number, row in enumerate(rows):  # never all of it as text in memory
            file.write((b',\n' if number else b'[') + msgspec.json.encode(row))
        file.write(b']\n' if len(detections.scores) else b'[]\n')


def speed_summary(
    predictions: Sequence[Mapping[str, Any]], density: Mapping[int, str], **complexity: Any
) -> result.Speed | None:
    """The result file's ``speed``, of predictions with ``stages_s``, seconds by stage; None if there are none.

    The density bin of each image is given by its id, and the model's ``parameters`` and ``gflops``.
    """
    timed = [one for one in predictions if 'stages_s' in one]
    if not timed:
        return None
    stages_ms = {name: [1000 * one['stages_s'][name] for one in timed] for name in timed[0]['stages_s']}
    times_ms = np.add(stages_ms['forward'], stages_ms['post-process'])
    bins = np.array([density.get(one['img_id'], '') for one in timed])

    def summed_up(own_ms: Any) -> result.Times:
        return result.Times(median_ms=float(np.median(own_ms)), p95_ms=float(np.percentile(own_ms, 95)))

    on_gpu = torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if resource else None  # on Linux in this unit
    return result.Speed(
        **msgspec.structs.asdict(summed_up(times_ms)),
        images=len(timed),
        per_density={name: summed_up(times_ms[bins == name]) for name in DENSITY_NAMES if name in bins},
        stages={name: summed_up(own_ms) for name, own_ms in stages_ms.items()},
        **complexity,
        peak_memory_mb=peak_kb and peak_kb / 1024,
        peak_gpu_memory_mb=torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None,
        device=torch.cuda.get_device_name() if on_gpu else hardware()['cpu'],
        threads=torch.get_num_threads(),
    )


def _run_lengths(masks: Any) -> list[dict[str, Any]]:
    if isinstance(masks, torch.Tensor | np.ndarray):
        return encode_masks(masks)
    codes = [rle['counts'].decode() if isinstance(rle['counts'], bytes) else rle['counts'] for rle in masks]
    return [{'size': [*map(int, rle['size'])], 'counts': code} for rle, code in zip(masks, codes, strict=True)]
