"""``ArmbenchMetric``: COCO's protocol on ARMBench, with every known way to a silent wrong number refused."""

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
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
from armbench_mmdet.evaluation.matches import MatchTable, match_table
from armbench_mmdet.evaluation.operating import operations, pick_scores
from armbench_mmdet.evaluation.predictions import checked_prediction, shapes_of, write_coco_results
from armbench_mmdet.evaluation.protocol import IOU_TYPES, Matching, Shapes
from armbench_mmdet.evaluation.result import (
    MEAN,
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
from armbench_mmdet.evaluation.strata import SCORE_THRESHOLD, scores_of_type, segmentation_errors, speed_summary
from armbench_mmdet.run_folder import METRIC_PREFIX
from armbench_mmdet.system import installed_versions


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
        self.result: Result | None = None  # the last evaluation
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
        source = GroundTruthSource.of(meta) if is_one else None
        if source is None:
            got = (
                'a data set of another type' if is_one else 'several, whose images may share ids: test them one by one'
            )
            raise InputError(f'evaluated data must come from the one annotation file of an ArmbenchDataset, got {got}')
        return source

    def write_to(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Write results into a folder, named after the annotation file, and add to the identity."""
        self.result_file = folder / f'{self.source.subset}_{self.source.split}.json'
        self.identity |= identity

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Take predictions, one dict an image, see :func:`~armbench_mmdet.evaluation.predictions.checked_prediction`.

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
        """Evaluate what all processes have processed of a data set of this length, whatever their shares.

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
        predictions = list({one['img_id']: one for one in reversed(results)}.values())[::-1]
        detections = shapes_of(predictions, list(self.ground_truth.categories))
        thresholds = self._val_thresholds()
        fields: dict[str, Any] = {}
        for matching in self._matchings(detections):
            iou_type, table = matching.iou_type, match_table(matching)
            fields[iou_type] = scores_of_type(matching, table, self._written(iou_type, detections, table))
            if iou_type == 'segm':
                fields['segmentation_errors'] = segmentation_errors(matching)
                fields['picks'] = pick_scores(matching, CLASSES[-1], thresholds.get(CLASSES[-1], SCORE_THRESHOLD))
                fields['anatomy'] = error_anatomy(matching) if matching.is_across else None
            if iou_type == 'segm' or 'segm' not in self.iou_types:
                fields['operation'] = operations(matching, thresholds)
        density = dict(zip(table.image_ids.tolist(), table.density.tolist(), strict=True))
        self.result = Result(
            schema_version=1,
            identity=self._full_identity(),
            classes=self.classes,
            images=self._count_images(predictions, repeated=len(results) - len(predictions)),
            detections=len(detections.scores),
            speed=speed_summary(predictions, density, **self.complexity),
            **fields,
        )
        if self.log_table:
            print_log('\n' + result_table(self.result), logger='current')
        if self.result_file:
            write_result(self.result_file, self.result)
        return {
            f'{iou_type}_{key}' if name == MEAN else f'{iou_type}_{name}_{key}': value
            for iou_type in self.iou_types
            for name, one in self.result.scores[iou_type].by_class.items()
            for key, value in one.numbers().items()
        }

    def _matchings(self, detections: Shapes) -> Iterator[Matching]:
        for iou_type in self.iou_types:
            is_across = iou_type == 'segm' and self.result_file is not None
            matching = Matching(self.ground_truth, detections, iou_type, is_across)
            yield matching
            if is_across:
                yield matching.of_boundaries()

    def _written(self, iou_type: str, detections: Shapes, table: MatchTable) -> dict[str, Interval] | None:
        """Write what lies beside the result file, and draw the intervals of the mAP; nothing where none is written."""
        if self.result_file is None:
            return None
        if iou_type in IOU_TYPES:
            write_coco_results(self.result_file.with_suffix(f'.{iou_type}.json'), detections, iou_type)
        table.save(matches_path(self.result_file, iou_type))
        return {name: Interval(low=one.low, high=one.high) for name, one in group_intervals([table]).items()}

    def logged_names(self) -> list[str]:
        """What :meth:`evaluate` gives, by name."""
        names = ['', *(f'_{name}' for name in self.classes)]
        return [f'{self.prefix}/{one}{name}_{key}' for one in self.iou_types for name in names for key in SUMMARY_KEYS]

    def add_timing(self, stages_s: Mapping[str, float], images: int) -> None:
        """Note the times per image, by stage, of the last so many images that were processed."""
        for prediction in self.results[-images:]:
            prediction['stages_s'] = stages_s

    def _count_images(self, predictions: Sequence[Mapping[str, Any]], repeated: int) -> Images:
        total = len(self.ground_truth.images)
        unreadable = [prediction['unreadable'] for prediction in predictions if 'unreadable' in prediction]
        not_seen = total - len(predictions)
        if unreadable:
            about = f'{len(unreadable)} images could not be read, and count as images without detections:'
            print_log('\n  '.join([about, *unreadable]), logger='current', level=logging.WARNING)
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
        source, known = GroundTruthSource.of(self.dataset_meta), dict(self.identity)
        if source:
            known = {'subset': source.subset, 'split': source.split, **known}
            known['extra'] = {**source.location(), **known.get('extra', {})}
        if source and self.result_file:
            known.setdefault('data_fingerprint', file_fingerprint(source.ann_file))
        return Identity(**{'versions': installed_versions(), **known})
