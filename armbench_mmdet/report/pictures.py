"""Pictures of the best, median and worst images."""

from __future__ import annotations

import base64
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import cv2
import msgspec
import numpy as np

from armbench_mmdet.datasets.ground_truth import load_ground_truth
from armbench_mmdet.datasets.locations import IMAGE_FOLDER
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import FOUND, IGNORED, ClassMatches, MatchTable
from armbench_mmdet.evaluation.metric import only_classes
from armbench_mmdet.evaluation.protocol import (
    RECALL_THRESHOLDS,
    best_first,
    by_image_and_class,
    compute_overlaps,
    run_lengths,
)
from armbench_mmdet.evaluation.result import Result, file_fingerprint, matches_path, read_result
from armbench_mmdet.report.collect import Run
from armbench_mmdet.visualization import instances

ALL = 'all'
KINDS = ('best', 'median', 'worst')


class Choice(NamedTuple):
    """An image chosen by its score.

    Attributes:
        kind: ``best``, ``median`` or ``worst``.
        image_id: The image.
        score: From 0 to 1.
        rank: 1 for the best.
        images: How many were ranked.
    """

    kind: str
    image_id: int
    score: float
    rank: int
    images: int


def image_scores(table: MatchTable, class_name: str = ALL) -> np.ndarray:
    """The score of every image, see the module.

    Args:
        table: The matches of a result.
        class_name: A class of the table, or ``all``.

    Returns:
        ``(I,)`` float64 in the table's order, NaN where there is none.
    """
    names = list(table.classes) if class_name == ALL else [class_name]
    columns = np.array([_class_scores(table.classes[name]) for name in names])
    defined = ~np.isnan(columns)
    with np.errstate(invalid='ignore'):
        return np.where(defined, columns, 0).sum(0) / defined.sum(0)


def choose(table: MatchTable, class_name: str, per_kind: int) -> list[Choice]:
    """The best, the median and the worst images, no image twice.

    Images are ranked by falling score, equal scores by rising image id. The best are the first ranks, the worst the
    last, the median those around the middle rank. With fewer than three times ``per_kind`` images each kind gets a
    third of them, but at least one while there are any left: first the best, then the worst, then the median.

    Args:
        table: The matches of a result.
        class_name: A class of the table, or ``all``.
        per_kind: How many of each.

    Returns:
        The choices by kind and rank; none if no image has a score.
    """
    scores = image_scores(table, class_name)
    scored = np.flatnonzero(~np.isnan(scores))
    order = scored[np.lexsort((table.image_ids[scored], -scores[scored]))]
    count = min(per_kind, max(len(order) // 3, 1))
    ranks = list(range(len(order)))
    best = ranks[:count]
    worst = ranks[count:][-count:]
    between = ranks[count : len(ranks) - count]
    start = (len(between) - count) // 2
    chosen = {'best': best, 'median': between[max(start, 0) : max(start, 0) + count], 'worst': worst}
    return [
        Choice(kind, int(table.image_ids[order[rank]]), float(scores[order[rank]]), rank + 1, len(order))
        for kind in KINDS
        for rank in chosen[kind]
    ]


def _class_scores(matches: ClassMatches) -> np.ndarray:
    """``(I,)`` float64, NaN for images without an instance of the class."""
    scores = np.full(len(matches.instances), np.nan)
    by_image = np.argsort(matches.image, kind='stable')  # within an image, detections stay best first
    bounds = np.searchsorted(matches.image[by_image], np.arange(len(scores) + 1))
    for row in np.flatnonzero(matches.instances):
        own = by_image[bounds[row] : bounds[row + 1]]
        scores[row] = _average_precision(matches.outcome[:, own], int(matches.instances[row]))
    return scores


def _average_precision(outcome: np.ndarray, instances: int) -> float:
    """COCO's interpolated average precision over all thresholds, from outcomes ``(T, D)`` best score first."""
    found = np.cumsum(outcome == FOUND, axis=1)
    counted = np.cumsum(outcome != IGNORED, axis=1)
    precision = found / np.maximum(counted, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = 0.0
    for recall, best in zip(found / instances, envelope, strict=True):
        reached = np.searchsorted(recall, RECALL_THRESHOLDS)
        total += best[reached[reached < len(best)]].sum()
    return total / (len(RECALL_THRESHOLDS) * len(outcome))


MATCH_IOU = 0.5
LARGEST_BYTES = 44_000
"""Of one picture: two runs on three subsets, three classes, three kinds and three of each come to 7 MB."""

_PANELS_PX = (640, 560, 480, 400, 320)
_QUALITIES = (80, 65, 50)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A comparison of one image, ready to be shown.

    Attributes:
        kind: Which end of the ranking it stands for.
        subset: Of the data set.
        split: Of the data set.
        image: File name of the image.
        image_score: Its score, from 0 to 1.
        class_name: ``all``, or the only class that is ranked and drawn.
        jpeg: The picture.
        caption: What it shows, with every threshold.
    """

    kind: Literal['best', 'median', 'worst']
    subset: str
    split: str
    image: str
    image_score: float | None
    class_name: str
    jpeg: bytes
    caption: str


class _Detection(msgspec.Struct):
    """A COCO result; the mask stays undecoded until its image is chosen."""

    image_id: int
    category_id: int
    score: float
    segmentation: msgspec.Raw


def pictures(result_path: Path, per_kind: int = 3, score_threshold: float = 0.5) -> list[Picture]:
    """Draw the images of a result that stand for its best, its median and its worst.

    Read are the result file, the match table and the COCO results beside it, and the data it names.

    Args:
        result_path: The result file.
        per_kind: How many of each kind, for ``all`` and for each class.
        score_threshold: Predictions below this score are not drawn.

    Returns:
        The pictures by class, kind and rank.

    Raises:
        InputError: There is nothing to draw from: no masks in the result, annotations or images gone or changed.
    """
    result_path = Path(result_path)
    result = read_result(result_path)
    if result.segm is None:
        raise InputError(f'a result must have masks to be drawn, got none (in {result_path})')
    table = MatchTable.load(matches_path(result_path, 'segm'))
    choices = [(name, one) for name in (ALL, *result.classes) for one in choose(table, name, per_kind)]
    image_ids = {one.image_id for _, one in choices}
    truth, image_folder = _ground_truth(result, result_path)
    images = {image['id']: image for image in truth['images'] if image['id'] in image_ids}
    annotations = by_image_and_class([a for a in truth['annotations'] if a['image_id'] in image_ids])
    detections = by_image_and_class(_detections(result_path.with_suffix('.segm.json'), image_ids, score_threshold))
    if image_ids - images.keys():
        raise InputError(
            f'annotations must have every image of the result, got none of ids {sorted(image_ids - images.keys())[:3]} '
            f'(in {result_path})'
        )
    names = {category['id']: category['name'] for category in truth['categories']}
    drawn = []
    for class_name, choice in choices:
        chosen_names = {i: name for i, name in names.items() if class_name in (ALL, name)}
        image = images[choice.image_id]
        judged = judge(image, chosen_names, annotations, detections)
        jpeg = _small_jpeg(_read(image_folder / image['file_name']), *judged, score_threshold)
        identity = result.identity
        caption = _caption(class_name, choice, judged, score_threshold)
        kind = cast(Literal['best', 'median', 'worst'], choice.kind)
        where = (str(identity.subset), str(identity.split), image['file_name'])
        drawn.append(Picture(kind, *where, choice.score, class_name, jpeg, caption))
    return drawn


def judge(
    image: Mapping[str, Any],
    class_names: Mapping[int, str],
    annotations: Mapping[tuple[int, int], Sequence[Mapping[str, Any]]],
    detections: Mapping[tuple[int, int], Sequence[Mapping[str, Any]]],
) -> tuple[list[instances.Instance], list[instances.Instance]]:
    """Say of each instance and prediction of an image whether it was found or is right.

    Args:
        image: With ``id``, ``height`` and ``width``.
        class_names: By category id; other categories are left out.
        annotations: By image and category id.
        detections: COCO results with masks, by image and category id.

    Returns:
        Ground truth and predictions with their verdicts.
    """
    truth, predictions = [], []
    for category, name in class_names.items():
        pair = (image['id'], category)
        size = (image['height'], image['width'])
        real = [{**a, 'mask': run_lengths(a['segmentation'], *size)} for a in annotations.get(pair, ())]
        guessed = best_first(detections.get(pair, ()))
        ious = compute_overlaps(real, guessed, 'segm').get(pair, np.zeros((len(guessed), len(real))))
        crowd = np.array([bool(a.get('iscrowd')) for a in real], bool)
        taken, verdicts = match_greedily(ious, crowd)
        for annotation, is_taken, is_crowd in zip(real, taken, crowd, strict=True):
            verdict = instances.NOT_COUNTED if is_crowd else instances.FOUND if is_taken else instances.MISSED
            truth.append(instances.Instance(annotation['mask'], name, verdict=verdict))
        for detection, verdict in zip(guessed, verdicts, strict=True):
            predictions.append(instances.Instance(detection['segmentation'], name, detection['score'], verdict))
    return truth, predictions


def match_greedily(ious: np.ndarray, crowd: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Match as ``COCOeval.evaluateImg`` does at IoU 0.5: best score first, each to the free instance it overlaps most.

    Args:
        ious: ``(D, G)`` float64, detections by falling score.
        crowd: ``(G,)`` bool.

    Returns:
        ``(G,)`` bool, the instances that were found; and the verdict of each detection.
    """
    taken = np.zeros(len(crowd), bool)
    verdicts = []
    for row in ious:
        allowed = np.flatnonzero(~taken & ~crowd & (row >= MATCH_IOU))
        if allowed.size:
            taken[allowed[::-1][row[allowed[::-1]].argmax()]] = True  # of equal overlaps COCO takes the last
            verdicts.append(instances.CORRECT)
        else:
            verdicts.append(instances.NOT_COUNTED if (row[crowd] >= MATCH_IOU).any() else instances.FALSE_POSITIVE)
    return taken, verdicts


def _ground_truth(result: Result, result_path: Path) -> tuple[dict[str, Any], Path]:
    """The ground truth that the result was computed on, and the folder of its images."""
    extra = result.identity.extra
    remedy = f'evaluate again with tools/test.py (in {result_path})'
    if 'ann_file' not in extra:
        raise InputError(f'a result must name its annotation file to be drawn, got none; {remedy}')
    ann_file = Path(extra['ann_file'])
    fingerprint, wanted = file_fingerprint(ann_file), result.identity.data_fingerprint
    if fingerprint is None:
        raise InputError(f'annotation file must be there for pictures, got {str(ann_file)!r}, which is gone; {remedy}')
    if wanted is not None and fingerprint != wanted:
        raise InputError(f'annotation file must be as it was when evaluated, got another {str(ann_file)!r}; {remedy}')
    truth = only_classes(load_ground_truth(ann_file, extra.get('category_map')), result.classes)
    return truth, Path(extra.get('image_folder') or ann_file.parent / IMAGE_FOLDER)


def _detections(path: Path, image_ids: set[int], score_threshold: float) -> list[dict[str, Any]]:
    """The predictions of some images from a file of COCO results."""
    try:
        every = msgspec.json.decode(path.read_bytes(), type=list[_Detection])
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(f'COCO results must lie beside the result file, got {error} (in {path})') from error
    return [
        {
            'image_id': one.image_id,
            'category_id': one.category_id,
            'score': one.score,
            'segmentation': msgspec.json.decode(one.segmentation),
        }
        for one in every
        if one.image_id in image_ids and one.score >= score_threshold
    ]


def _read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if image is None:
        raise InputError(f'images must be there and readable for pictures, got none at {str(path)!r}')
    return image


def _small_jpeg(
    image: np.ndarray,
    truth: Sequence[instances.Instance],
    predictions: Sequence[instances.Instance],
    score_threshold: float,
) -> bytes:
    """The comparison as a JPEG of at most :data:`LARGEST_BYTES`, or the smallest there is: quality gives way first."""
    image, (truth, predictions) = instances.shrunk(image, (truth, predictions), _PANELS_PX[0])
    for panel_px in _PANELS_PX:
        drawn = instances.draw_comparison(
            image, truth, predictions, f'prediction, score from {score_threshold:g}', panel_px
        )
        for quality in _QUALITIES:
            jpeg = cv2.imencode('.jpg', drawn, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            if len(jpeg) <= LARGEST_BYTES:
                return jpeg
    return jpeg


def _caption(
    class_name: str,
    choice: Choice,
    judged: tuple[Sequence[instances.Instance], Sequence[instances.Instance]],
    score_threshold: float,
) -> str:
    counts = Counter(one.verdict for part in judged for one in part)
    which = 'mean over its classes' if class_name == ALL else class_name
    return (
        f'{choice.kind}, rank {choice.rank} of {choice.images} by the AP of this image alone ({which}, IoU 0.50:0.95, '
        f'all scores): {choice.score:.3f}. Drawn at score ≥ {score_threshold:g} and matched at IoU ≥ {MATCH_IOU:g}: '
        f'{counts[instances.FOUND]} found, {counts[instances.MISSED]} missed, '
        f'{counts[instances.FALSE_POSITIVE]} false positives.'
    )


if TYPE_CHECKING:
    from armbench_mmdet.report.pictures import Picture

BUDGET_BYTES = 8_500_000
"""Of all pictures as they stand in the page; with the plots' code it stays below 15 MB."""


@dataclasses.dataclass(frozen=True)
class Shot:
    """A picture of a run, its place among those of its kind, and its source as the page has it."""

    run: str
    picture: Picture
    rank: int
    source: str


def gallery(runs: Sequence[Run], budget_bytes: int = BUDGET_BYTES) -> tuple[list[Shot], list[str]]:
    """Draw the best, median and worst images of every result.

    Of what does not fit, the lower ranks go first.

    Args:
        runs: The runs.
        budget_bytes: For all of them together.

    Returns:
        The pictures in the order of the runs, and what is missing, a line each.
    """
    from armbench_mmdet.report.pictures import pictures  # draws with OpenCV: not for tables alone

    shots: list[Shot] = []
    notes: list[str] = []
    for run in runs:
        for evaluation in run.evaluations:
            try:
                drawn = pictures(evaluation.path)
            except InputError as error:
                notes.append(f'{run.name}: no pictures of {evaluation.subset} {evaluation.split}: {error}')
                continue
            ranks: Counter[tuple[str, str]] = Counter()
            for picture in drawn:
                source = 'data:image/jpeg;base64,' + base64.b64encode(picture.jpeg).decode()
                shots.append(Shot(run.name, picture, ranks[picture.kind, picture.class_name], source))
                ranks[picture.kind, picture.class_name] += 1
    kept = _fitting(shots, budget_bytes)
    if len(kept) < len(shots):
        notes.append(
            f'{len(shots) - len(kept)} of {len(shots)} pictures, of lower ranks, are left out to keep the page small'
        )
    return kept, notes


def _fitting(shots: Sequence[Shot], budget_bytes: int) -> list[Shot]:
    kept, used = set(), 0
    for number, shot in sorted(enumerate(shots), key=lambda pair: pair[1].rank):
        used += len(shot.source)
        if used > budget_bytes:
            break
        kept.add(number)
    return [shot for number, shot in enumerate(shots) if number in kept]
