"""The result file: its types, reading, writing, and its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
from tabulate import tabulate

from armbench_mmdet.files import read_json, sha256_of, write_json

MISSING = '–'
MEAN = 'mean'
PREDICTIONS, FLAGS = 'predictions', 'flags'
"""Keys of ``identity.extra`` where another model was evaluated: the file, and what should be known beside the score."""
Number = float | None


class Scores(msgspec.Struct, kw_only=True, frozen=True):
    """COCO's numbers under one IoU type: average precision and average recall, 0 to 1; None without ground truth."""

    mAP: Number
    mAP_50: Number
    mAP_75: Number
    mAP_s: Number
    mAP_m: Number
    mAP_l: Number
    AR_1: Number
    AR_10: Number
    AR_100: Number

    def numbers(self) -> dict[str, Number]:
        """Every number by its name, :data:`SUMMARY_KEYS`."""
        return {key: getattr(self, key) for key in SUMMARY_KEYS}


SUMMARY_KEYS = Scores.__struct_fields__


class ClassScores(Scores, kw_only=True, frozen=True):
    """One class; ``instances`` counts its ground truth without crowds."""

    instances: int


class StratumScores(msgspec.Struct, kw_only=True, frozen=True):
    """A size or density bin; ``per_class`` has mAPs, ``images`` counts those with instances in it; no crowds."""

    mAP: Number = None
    mAP_50: Number = None
    mAP_75: Number = None
    AR_100: Number = None
    per_class: dict[str, Number] = {}
    instances: int
    images: int


class Interval(msgspec.Struct, kw_only=True, frozen=True):
    """The 95 % bootstrap interval of an mAP over images."""

    low: Number
    high: Number


class TypeScores(Scores, kw_only=True, frozen=True):
    """Everything under one IoU type; ``confidence`` has an interval for each class and for their ``mean``."""

    per_class: dict[str, ClassScores]
    per_size: dict[str, dict[str, StratumScores]]
    per_density: dict[str, StratumScores]
    confidence: dict[str, Interval] | None = None

    @property
    def instances(self) -> int:
        """Ground truth of all classes without crowds."""
        return sum(one.instances for one in self.per_class.values())

    @property
    def by_class(self) -> dict[str, TypeScores | ClassScores]:
        """The mean over the classes, under ``mean``, and each class."""
        return {MEAN: self, **self.per_class}


class Times(msgspec.Struct, kw_only=True, frozen=True):
    """Milliseconds per image."""

    median_ms: Number
    p95_ms: Number


class Speed(Times, kw_only=True, frozen=True):
    """Time from the loaded batch to finished predictions, per image, and the process's peak memory.

    ``stages`` has ``load``, which is not part of it, ``forward`` and ``post-process``.
    """

    images: int
    per_density: dict[str, Times]
    stages: dict[str, Times] = {}
    parameters: int | None = None
    gflops: Number = None
    peak_memory_mb: Number
    peak_gpu_memory_mb: Number
    device: str
    threads: int | None = None


class SegmentationErrors(msgspec.Struct, kw_only=True, frozen=True):
    """Shares of one class's instances, adding up to 1."""

    detected: Number
    over_segmented: Number
    under_segmented: Number
    missed: Number
    instances: int


class OperatingPoint(msgspec.Struct, kw_only=True, frozen=True):
    """What detections with at least this score would do; no ``precision`` where there is none."""

    threshold: float
    precision: Number
    recall: float
    f1: float


class ReliabilityBin(msgspec.Struct, kw_only=True, frozen=True):
    """Detections of like score: their mean score, and the share that is right."""

    score: float
    precision: float
    detections: int


class Operation(msgspec.Struct, kw_only=True, frozen=True):
    """A class at score thresholds, IoU 0.5; ``best`` is chosen on this very data, ``of_val`` on ``val``."""

    best: OperatingPoint | None
    of_val: OperatingPoint | None
    curve: list[OperatingPoint]
    calibration_error: Number
    reliability: list[ReliabilityBin]


class PickScores(msgspec.Struct, kw_only=True, frozen=True):
    """Success of the first picks, 0 to 1, in so many images with objects, and objects miscounted from a score on."""

    success_1: float
    success_3: float
    success_5: float
    count_error: float
    count_score: float
    images: int


class ErrorCosts(msgspec.Struct, frozen=True):
    """AP at IoU 0.5 to be gained by correcting one kind of error, all others left."""

    classification: float
    localisation: float
    both: float
    duplicate: float
    background: float
    missed: float


class LRP(msgspec.Struct, kw_only=True, frozen=True):
    """The optimal localisation recall precision error, 0 to 1, less is better, and its threshold."""

    error: float
    threshold: Number


class Suspect(msgspec.Struct, kw_only=True, frozen=True):
    """A label that a sure detection contradicts; ``box`` is the detection's, x, y, width and height in px.

    ``fault`` is ``not annotated``, ``class`` or ``outline``; ``iou`` that with the annotation, if there is one.
    """

    fault: str
    image_id: int
    image: str | None
    annotation_id: int | None
    annotated: str | None
    predicted: str
    score: float
    iou: float
    box: list[float]


class Anatomy(msgspec.Struct, kw_only=True, frozen=True):
    """The errors of masks: ``costs`` of each class and ``mean``, and the worst of so many ``suspected`` labels.

    ``confusion`` has a row for each class and ``background``, and a column for each class and ``missed``.
    """

    costs: dict[str, ErrorCosts]
    lrp: dict[str, LRP]
    confusion: dict[str, dict[str, int]]
    suspects: list[Suspect]
    suspected: int


class Images(msgspec.Struct, kw_only=True, frozen=True):
    """Images, those never seen or unreadable, which count as without detections, and those seen twice."""

    ground_truth: int
    not_seen: int
    repeated: int
    unreadable: list[str] = []


class Identity(msgspec.Struct, kw_only=True, frozen=True):
    """What was evaluated on what; ``extra`` has more, such as where the data lie."""

    subset: str | None = None
    split: str | None = None
    config: str | None = None
    checkpoint: str | None = None
    seed: int | None = None
    data_fingerprint: str | None = None
    versions: dict[str, str] = {}
    extra: dict[str, Any] = {}


class Result(msgspec.Struct, kw_only=True, frozen=True):
    """One evaluation: the whole file."""

    schema_version: Literal[1]
    identity: Identity
    classes: list[str]
    images: Images
    detections: int
    bbox: TypeScores | None = None
    segm: TypeScores | None = None
    boundary: TypeScores | None = None
    segmentation_errors: dict[str, SegmentationErrors] | None = None
    operation: dict[str, Operation] | None = None
    picks: PickScores | None = None
    anatomy: Anatomy | None = None
    speed: Speed | None = None

    @property
    def scores(self) -> dict[str, TypeScores]:
        """The scores by IoU type, masks first; types that were not evaluated are left out."""
        every = {'segm': self.segm, 'boundary': self.boundary, 'bbox': self.bbox}
        return {iou_type: scores for iou_type, scores in every.items() if scores is not None}

    @property
    def not_annotated(self) -> list[str]:
        """The classes without ground truth: they have no score, and no part in a mean."""
        return [name for name in self.classes if not any(s.per_class[name].instances for s in self.scores.values())]


def val_thresholds(folder: Path, checkpoint_sha256: str) -> dict[str, float]:
    """The best threshold of each class in the result on ``val`` in a folder that is of a checkpoint; else none."""
    for val in map(read_result, sorted(folder.glob('*_val.json'))):
        if val.identity.extra.get('checkpoint_sha256') == checkpoint_sha256:
            return {name: one.best.threshold for name, one in (val.operation or {}).items() if one.best}
    return {}


def file_fingerprint(path: str | Path) -> str | None:
    """``sha256:`` and the digest of a file's content, or None if there is no such file."""
    return f'sha256:{sha256_of(Path(path))}' if Path(path).is_file() else None


def matches_path(result_file: Path, iou_type: str) -> Path:
    """Where the match table of an IoU type lies: beside the result file."""
    return result_file.with_suffix(f'.{iou_type}.matches.npz')


def write_result(path: Path, result: Result) -> None:
    """Write a result file; NaN becomes null, and readers see the old file or the new one, never half of it."""
    write_json(path, result)


def read_result(path: str | Path) -> Result:
    """Read and validate a result file.

    Raises:
        InputError: The file is missing, is no JSON, or does not follow the schema.
    """
    remedy = '; evaluate again with tools/test.py'
    return read_json(Path(path), Result, 'result file must be readable JSON of its schema', remedy)


def shown(value: float | None, digits: int = 3) -> str:
    """A number for a table: ``0.617``, or ``–`` where there is none."""
    return MISSING if value is None else f'{value:.{digits}f}'


def result_table(result: Result) -> str:
    """One row for the mean and one for each class, under each IoU type; and a line for each class at its threshold."""
    rows = [
        [iou_type if name == MEAN else '', name, *map(shown, one.numbers().values()), one.instances]
        for iou_type, scores in result.scores.items()
        for name, one in scores.by_class.items()
    ]
    about = f'{result.images.ground_truth} images, {result.detections} detections'
    if result.images.not_seen:
        about += f', {result.images.not_seen} images NOT predicted'
    for name in result.not_annotated:
        about += f'; no {name} is annotated: it has no score and no part in the mean, and predicting it is no fault'
    title = ' '.join(filter(None, (result.identity.subset, result.identity.split)))
    align = ['left', 'left', *['right'] * (len(SUMMARY_KEYS) + 1)]
    table = tabulate(rows, ['', 'class', *SUMMARY_KEYS, 'instances'], 'plain', colalign=align, disable_numparse=True)
    lines = [f'{title}: {about}' if title else about, table]
    for name, one in (result.operation or {}).items():
        point, of = (one.of_val, 'best on val') if one.of_val else (one.best, 'best on this very data')
        if point:
            numbers = f'precision {shown(point.precision)}, recall {point.recall:.3f}, F1 {point.f1:.3f}'
            lines.append(f'{name} at score {point.threshold:.3f} ({of}): {numbers}')
    if picks := result.picks:
        success = f'success of the first {picks.success_1:.3f}, of the first five {picks.success_5:.3f}'
        lines.append(f'picks: {success}; objects miscounted {picks.count_error:.2f} an image')
    return '\n'.join(lines)
