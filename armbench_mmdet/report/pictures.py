"""The best, median and worst images of a result, ground truth beside prediction; chosen by rule, never by hand.

The rule is in :mod:`armbench_mmdet.report.image_scores`. Colours follow COCO's greedy matching at IoU 0.5 among the
predictions of at least a display threshold: the average precision counts every prediction, a picture of all of them
would show nothing.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import msgspec
import numpy as np

from armbench_mmdet.datasets.ground_truth import load_ground_truth
from armbench_mmdet.datasets.locations import IMAGE_FOLDER
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import MatchTable
from armbench_mmdet.evaluation.metric import only_classes
from armbench_mmdet.evaluation.overlaps import best_first, by_image_and_class, compute_overlaps, run_lengths
from armbench_mmdet.evaluation.result_file import file_fingerprint, matches_path, read_result
from armbench_mmdet.report import overlay
from armbench_mmdet.report.image_scores import ALL, Choice, choose

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
    if result['segm'] is None:
        raise InputError(f'a result must have masks to be drawn, got none (in {result_path})')
    table = MatchTable.load(matches_path(result_path, 'segm'))
    choices = [(name, one) for name in (ALL, *result['classes']) for one in choose(table, name, per_kind)]
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
        identity = result['identity']
        caption = _caption(class_name, choice, judged, score_threshold)
        kind = cast(Literal['best', 'median', 'worst'], choice.kind)
        where = (str(identity['subset']), str(identity['split']), image['file_name'])
        drawn.append(Picture(kind, *where, choice.score, class_name, jpeg, caption))
    return drawn


def judge(
    image: Mapping[str, Any],
    class_names: Mapping[int, str],
    annotations: Mapping[tuple[int, int], Sequence[Mapping[str, Any]]],
    detections: Mapping[tuple[int, int], Sequence[Mapping[str, Any]]],
) -> tuple[list[overlay.Instance], list[overlay.Instance]]:
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
            verdict = overlay.NOT_COUNTED if is_crowd else overlay.FOUND if is_taken else overlay.MISSED
            truth.append(overlay.Instance(annotation['mask'], name, verdict=verdict))
        for detection, verdict in zip(guessed, verdicts, strict=True):
            predictions.append(overlay.Instance(detection['segmentation'], name, detection['score'], verdict))
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
            verdicts.append(overlay.CORRECT)
        else:
            verdicts.append(overlay.NOT_COUNTED if (row[crowd] >= MATCH_IOU).any() else overlay.FALSE_POSITIVE)
    return taken, verdicts


def _ground_truth(result: Mapping[str, Any], result_path: Path) -> tuple[dict[str, Any], Path]:
    """The ground truth that the result was computed on, and the folder of its images."""
    extra = result['identity']['extra']
    remedy = f'evaluate again with tools/test.py (in {result_path})'
    if 'ann_file' not in extra:
        raise InputError(f'a result must name its annotation file to be drawn, got none; {remedy}')
    ann_file = Path(extra['ann_file'])
    fingerprint, wanted = file_fingerprint(ann_file), result['identity']['data_fingerprint']
    if fingerprint is None:
        raise InputError(f'annotation file must be there for pictures, got {str(ann_file)!r}, which is gone; {remedy}')
    if wanted is not None and fingerprint != wanted:
        raise InputError(f'annotation file must be as it was when evaluated, got another {str(ann_file)!r}; {remedy}')
    truth = only_classes(load_ground_truth(ann_file, extra.get('category_map')), result['classes'])
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
    truth: Sequence[overlay.Instance],
    predictions: Sequence[overlay.Instance],
    score_threshold: float,
) -> bytes:
    """The comparison as a JPEG of at most :data:`LARGEST_BYTES`, or the smallest there is: quality gives way first."""
    image, (truth, predictions) = overlay.shrunk(image, (truth, predictions), _PANELS_PX[0])
    for panel_px in _PANELS_PX:
        drawn = overlay.draw_comparison(
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
    judged: tuple[Sequence[overlay.Instance], Sequence[overlay.Instance]],
    score_threshold: float,
) -> str:
    counts = Counter(one.verdict for part in judged for one in part)
    which = 'mean over its classes' if class_name == ALL else class_name
    return (
        f'{choice.kind}, rank {choice.rank} of {choice.images} by the AP of this image alone ({which}, IoU 0.50:0.95, '
        f'all scores): {choice.score:.3f}. Drawn at score ≥ {score_threshold:g} and matched at IoU ≥ {MATCH_IOU:g}: '
        f'{counts[overlay.FOUND]} found, {counts[overlay.MISSED]} missed, '
        f'{counts[overlay.FALSE_POSITIVE]} false positives.'
    )
