"""``ArmbenchMetric``: COCO's protocol on ARMBench, with every known way to a silent wrong number refused."""

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.registry import METRICS
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from armbench_mmdet.datasets.ground_truth import GroundTruth, GroundTruthSource
from armbench_mmdet.datasets.release import CLASSES
from armbench_mmdet.engine.distributed import gathered
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.anatomy import error_anatomy
from armbench_mmdet.evaluation.bootstrap import group_intervals
from armbench_mmdet.evaluation.matches import match_table
from armbench_mmdet.evaluation.operating import operations
from armbench_mmdet.evaluation.picks import pick_scores
from armbench_mmdet.evaluation.predictions import checked_prediction, shapes_of, write_coco_results
from armbench_mmdet.evaluation.protocol import IOU_TYPES, Matching, Shapes
from armbench_mmdet.evaluation.result import (
    SCHEMA_VERSION,
    SUMMARY_KEYS,
    Identity,
    Images,
    Interval,
    Result,
    file_fingerprint,
    matches_path,
    read_result,
    result_table,
    write_result,
)
from armbench_mmdet.evaluation.strata import (
    SCORE_THRESHOLD,
    density_of_images,
    scores_of_type,
    segmentation_errors,
    speed_summary,
)
from armbench_mmdet.run_folder import METRIC_PREFIX
from armbench_mmdet.system import installed_versions


@METRICS.register_module()
class ArmbenchMetric(BaseMetric):
    """COCO bbox and segm over all images of the ground truth.

    Ground truth comes from the data set's own file (its meta information carries a
    :class:`~armbench_mmdet.datasets.ground_truth.GroundTruthSource`), loaded once for the life of the metric. An image
    that was never processed counts as one without detections, and is reported; one that was processed twice, as
    samplers do to fill the last batch, counts once. One that the data set could not read (``corrupt_images='skip'``)
    has no detections, and is listed.

    Logged keys, after the prefix ``coco/``: ``{bbox,segm}_{mAP,mAP_50,mAP_75,mAP_s,mAP_m,mAP_l,AR_1,AR_10,AR_100}``
    and the same for each class as ``segm_object_mAP``. A number without ground truth is None.

    Args:
        ann_file: COCO file of the ground truth of a data set that names none; else it must be the data set's.
        ground_truth: Itself, instead of a file.
        metric: ``bbox``, ``segm`` or both.
        result_file: Where to write the result file and, beside it, COCO results (``.bbox.json``, ``.segm.json``) and
            the match tables that compare two runs (:mod:`~armbench_mmdet.evaluation.bootstrap`); None writes nothing.
        identity: For the result file: ``config``, ``checkpoint``, ``seed``, ``data_fingerprint``, ``extra``.
        log_table: Whether to log the result as a table.
        prefix: As in mmengine.

    Attributes:
        result: The last evaluation, or None before the first.
        complexity: The model's ``parameters`` and ``gflops``, for the result file.
    """

    default_prefix = METRIC_PREFIX.rstrip('/')

    def __init__(
        self,
        ann_file: str | None = None,
        ground_truth: GroundTruth | None = None,
        metric: str | Sequence[str] = IOU_TYPES,
        result_file: str | None = None,
        identity: Mapping[str, Any] | None = None,
        log_table: bool = True,
        prefix: str | None = None,
    ) -> None:
        super().__init__(prefix=prefix)
        self.iou_types = [metric] if isinstance(metric, str) else list(metric)
        if not self.iou_types or not set(self.iou_types) <= set(IOU_TYPES):
            raise InputError(f'metric must be some of {", ".join(IOU_TYPES)}, got {metric!r}')
        self.ann_file = ann_file
        self.result_file = Path(result_file) if result_file else None
        self.identity = dict(identity or {})
        self.log_table = log_table
        self.complexity: dict[str, Any] = {}
        self.result: Result | None = None
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
        """Where the ground truth comes from: the data set's own file, or ``ann_file`` for one that names none.

        Raises:
            InputError: There is none, there are several, or ``ann_file`` is another than the data set's.
        """
        meta: Any = self.dataset_meta or {}
        if isinstance(meta, list) or len(meta.get('cumulative_sizes', ())) > 1:
            raise InputError(
                'evaluated data must come from one annotation file, got a ConcatDataset of several: their images may '
                'share ids; validate on one, and test the others one by one'
            )
        source = GroundTruthSource.of(meta)
        if self.ann_file is None and source is None:
            raise InputError('ann_file must be given to the metric or by the data set, got None')
        if self.ann_file is None or source is None:
            return source or GroundTruthSource(str(self.ann_file))
        same_path = Path(self.ann_file).absolute() == Path(source.ann_file).absolute()
        if not same_path and file_fingerprint(self.ann_file) != file_fingerprint(source.ann_file):
            raise InputError(
                f"ann_file of the evaluator must be the data set's, {source.ann_file!r}, got {self.ann_file!r}; "
                'leave it out'
            )
        return source

    def write_to(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Write results into a folder, named after the annotation file: ``<subset>_<split>.json``, see :attr:`source`.

        Args:
            folder: The folder.
            identity: As for the class; added to what it has.
        """
        self.result_file = folder / f'{self.source.subset}_{self.source.split}.json'
        self.identity |= identity

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Take the predictions of a batch, see :func:`~armbench_mmdet.evaluation.predictions.checked_prediction`.

        Args:
            data_batch: Not used.
            data_samples: One dict an image, with ``img_id``, ``ori_shape`` and ``pred_instances``.

        Raises:
            InputError: Labels out of range, boxes without masks, an image that the ground truth does not have, masks of
                another size than the image there.
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
        """Evaluate what all processes have processed, in the data set's order, whatever their shares.

        Args:
            size: The data set's length; what samplers added to give all processes equally much is left out.

        Returns:
            The same in every process, see :meth:`compute_metrics`, its keys with the prefix.
        """
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
        first: dict[int, dict[str, Any]] = {}
        for prediction in results:
            first.setdefault(prediction['img_id'], prediction)
        predictions = list(first.values())
        detections = shapes_of(predictions, list(self.ground_truth.categories))
        thresholds = self._val_thresholds()
        fields: dict[str, Any] = {}
        for iou_type in self.iou_types:
            fields |= self._fields_of_type(iou_type, detections, thresholds, predictions)
        self.result = Result(
            schema_version=SCHEMA_VERSION,
            identity=self._full_identity(),
            classes=self.classes,
            images=self._count_images(predictions, repeated=len(results) - len(predictions)),
            detections=len(detections.scores),
            **fields,
        )
        if self.log_table:
            print_log('\n' + result_table(self.result), logger='current')
        if self.result_file:
            write_result(self.result_file, self.result)
        return {
            f'{name}_{key}': value
            for iou_type, scores in self.result.scores.items()
            for name, one in {iou_type: scores, **{f'{iou_type}_{k}': v for k, v in scores.per_class.items()}}.items()
            for key, value in one.numbers().items()
        }

    def _fields_of_type(
        self, iou_type: str, detections: Shapes, thresholds: Mapping[str, float], predictions: Sequence[Mapping]
    ) -> dict[str, Any]:
        """The fields of the result that come from one IoU type."""
        is_segm, confidence = iou_type == 'segm', None
        matching = Matching(self.ground_truth, detections, iou_type, is_across=is_segm and bool(self.result_file))
        table = match_table(matching)
        fields: dict[str, Any] = {'speed': speed_summary(predictions, density_of_images(table), **self.complexity)}
        if self.result_file:
            write_coco_results(self.result_file.with_suffix(f'.{iou_type}.json'), detections, iou_type)
            table.save(matches_path(self.result_file, iou_type))
            intervals = group_intervals([table])
            confidence = {name: Interval(low=one.low, high=one.high) for name, one in intervals.items()}
        if is_segm:
            fields['segmentation_errors'] = segmentation_errors(matching)
            fields['picks'] = pick_scores(matching, CLASSES[-1], thresholds.get(CLASSES[-1], SCORE_THRESHOLD))
            fields['anatomy'] = error_anatomy(matching) if self.result_file else None
        if is_segm or 'segm' not in self.iou_types:
            fields['operation'] = operations(matching, thresholds)
        return {**fields, iou_type: scores_of_type(matching, table, confidence)}

    def logged_names(self) -> list[str]:
        """What :meth:`evaluate` gives, by name."""
        of = [name for one in self.iou_types for name in (one, *(f'{one}_{category}' for category in self.classes))]
        return [f'{self.prefix}/{name}_{key}' for name in of for key in SUMMARY_KEYS]

    def add_timing(self, stages_s: Mapping[str, float], images: int) -> None:
        """Note the times per image, by stage, of the last so many images that were processed."""
        for prediction in self.results[-images:]:
            prediction['stages_s'] = stages_s

    def _count_images(self, predictions: Sequence[Mapping[str, Any]], repeated: int) -> Images:
        total = len(self.ground_truth.images)
        unreadable = [prediction['unreadable'] for prediction in predictions if 'unreadable' in prediction]
        not_seen = total - len(predictions)
        faults = {
            f'{not_seen} of {total} images were not predicted': not_seen,
            '\n  '.join([f'{len(unreadable)} images could not be read:', *unreadable]): len(unreadable),
        }
        for fault in (fault for fault, count in faults.items() if count):
            print_log(f'counted as images without detections: {fault}', logger='current', level=logging.WARNING)
        return Images(ground_truth=total, not_seen=not_seen, repeated=repeated, unreadable=unreadable)

    def _val_thresholds(self) -> dict[str, float]:
        """The best threshold of each class in the result on ``val`` that lies beside, if it is of this checkpoint."""
        sha256 = self.identity.get('extra', {}).get('checkpoint_sha256')
        if self.result_file and sha256 and not self.result_file.name.endswith('_val.json'):
            for result in map(read_result, sorted(self.result_file.parent.glob('*_val.json'))):
                if result.identity.extra.get('checkpoint_sha256') == sha256:
                    return {name: one.best.threshold for name, one in (result.operation or {}).items() if one.best}
        return {}

    def _full_identity(self) -> Identity:
        known: dict[str, Any] = {'subset': None, 'split': None}
        extra = dict(self.identity.get('extra', {}))
        if self.ann_file is not None or GroundTruthSource.of(self.dataset_meta):
            known = {'subset': self.source.subset, 'split': self.source.split}
            known['data_fingerprint'] = file_fingerprint(self.source.ann_file) if self.result_file else None
            extra = {**self.source.location(), **extra}
        return Identity(**{**known, 'versions': installed_versions(), **self.identity, 'extra': extra})
