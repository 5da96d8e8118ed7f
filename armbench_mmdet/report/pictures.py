"""Pictures of the best, median and worst images, and of suspected labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import msgspec
import numpy as np

from armbench_mmdet import visualization as instances
from armbench_mmdet.datasets.ground_truth import GroundTruth, GroundTruthSource
from armbench_mmdet.datasets.images import read_image
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation import matches
from armbench_mmdet.evaluation.coco_results import CocoResult
from armbench_mmdet.evaluation.protocol import SCORE_THRESHOLD, Matching, Shapes
from armbench_mmdet.evaluation.result import Suspect, file_fingerprint
from armbench_mmdet.files import read_json
from armbench_mmdet.masks.encode import decode_mask, encode_masks
from armbench_mmdet.report.collect import AGAIN, Evaluation, Run, noted

SUSPECTED = 'suspected label'
KINDS = ('best', 'median', 'worst')
PER_KIND, MOST_RESULTS = 3, 12
"""Pictures of a kind, of up to so many results; of more, one of each kind: a page must stay small."""
MOST_SUSPECTED = 12
MATCH_IOU = 0.5
OF_OUTCOME = (instances.FALSE_POSITIVE, instances.CORRECT, instances.NOT_COUNTED)
"""The verdicts on predictions that are MISSED, FOUND and IGNORED in a match table."""
PANEL_PX, CLOSE_PX = 480, 320
JPEG_QUALITY = 60


class Choice(NamedTuple):
    """An image that is drawn, chosen by its score, or the part around a ``box`` with a suspected label."""

    kind: str
    image_id: int
    caption: str
    box: Sequence[float] | None = None


class Picture(NamedTuple):
    """Ground truth beside the prediction of a run on ``data``, subset and split, ready to be shown."""

    run: str
    data: str
    kind: str
    image: str
    jpeg: bytes
    caption: str


def gallery(runs: Sequence[Run]) -> tuple[list[Picture], list[str]]:
    """Draw the best, median and worst images of every result, and the worst of the labels that it makes suspected.

    The pictures are in the order of the runs; with them comes what is missing, a line each.
    """
    results = [(run, evaluation) for run in runs for evaluation in run.evaluations]
    per_kind = PER_KIND if len(results) <= MOST_RESULTS else 1
    drawn: list[Picture] = []
    notes: list[str] = []
    for run, evaluation in results:
        with noted(notes, f' (no pictures of {evaluation.subset} {evaluation.split} by {run.name})'):
            drawn += draw(run.name, evaluation, per_kind, max(MOST_SUSPECTED // len(results), 1))
    return drawn, notes


def choose(table: matches.MatchTable, per_kind: int) -> list[Choice]:
    """The best, the median and the worst images by rank, no image twice; none if no image has a score.

    Images are ranked by falling score, equal scores by rising image id. With fewer than three times ``per_kind`` images
    each kind gets a third of them, but at least one while there are any left: first the best, then the worst.
    """
    scores, ids = image_scores(table), table.image_ids
    order = sorted(np.flatnonzero(~np.isnan(scores)).tolist(), key=lambda row: (-scores[row], ids[row]))
    count = min(per_kind, max(len(order) // 3, 1))
    ranks = list(enumerate(order, 1))
    between = ranks[count:-count]
    start = max((len(between) - count) // 2, 0)
    chosen = ranks[:count], between[start : start + count], ranks[count:][-count:]
    return [
        Choice(kind, int(ids[row]), f'{kind}: rank {rank} of {len(order)}, AP of this image alone {scores[row]:.3f}')
        for kind, own in zip(KINDS, chosen, strict=True)
        for rank, row in own
    ]


def image_scores(table: matches.MatchTable) -> np.ndarray:
    """The average precision of every image alone, over all IoU thresholds and the classes that the image has.

    ``(I,) float64`` in the table's order, NaN where there is nothing to find.
    """
    scores = np.full((len(table.classes), len(table.image_ids)), np.nan)
    for own, one in zip(scores, table.classes.values(), strict=True):
        order = np.argsort(one.image, kind='stable')  # within an image, detections stay best first
        by_image = np.split(order, np.searchsorted(one.image[order], np.arange(1, len(own))))
        for row in np.flatnonzero(one.instances):
            found = by_image[row]
            alone = matches.ClassMatches(np.zeros_like(found), one.outcome[:, found], one.instances[row : row + 1])
            own[row] = matches.precision_at_recall(alone).mean()
    return np.ma.masked_invalid(scores).mean(0).filled(np.nan)


def draw(run: str, evaluation: Evaluation, per_kind: int = PER_KIND, most_suspected: int = 0) -> list[Picture]:
    """Draw images that stand for a run's result, and the labels that it makes suspected, the worst first.

    It takes the match table and the COCO results beside the result, and the data that the result names.

    Raises:
        InputError: The result has no masks, or predictions, annotations or images are gone or changed.
    """
    if 'segm' not in evaluation.tables:
        raise InputError(f'a result must have masks and their match table to be drawn, got none (in {evaluation.path})')
    suspects = evaluation.result.anatomy.suspects[:most_suspected] if evaluation.result.anatomy else []
    choices = choose(evaluation.tables['segm'], per_kind)
    choices += [Choice(SUSPECTED, one.image_id, _doubt(one), one.box) for one in suspects]
    image_ids = {choice.image_id for choice in choices}
    truth, image_folder = _ground_truth(evaluation, image_ids)
    matching = Matching(truth, _detections(evaluation.path.with_suffix('.segm.json'), image_ids), 'segm')
    drawn = []
    for choice in choices:
        name = truth.images[choice.image_id].file_name
        photo, panel_px = read_image(image_folder / name), PANEL_PX
        real, guessed = judge(matching, choice.image_id, evaluation.result.not_annotated)
        if choice.box:
            photo, real, guessed = _close_up(choice.box, photo, real, guessed)
            panel_px = CLOSE_PX
        both = instances.draw_comparison(photo, real, guessed, f'prediction, score from {SCORE_THRESHOLD:g}', panel_px)
        jpeg = cv2.imencode('.jpg', both, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
        data = f'{evaluation.subset} {evaluation.split}'
        drawn.append(Picture(run, data, choice.kind, name, jpeg, choice.caption))
    return drawn


def _doubt(suspect: Suspect) -> str:
    of = f' of annotation {suspect.annotation_id}, {suspect.annotated}, IoU {suspect.iou:.2f}'
    doubted = suspect.fault + (of if suspect.annotated else '')
    return f'{suspect.predicted} at score {suspect.score:.3f}, in the middle of the picture: {doubted}'


def _close_up(
    box: Sequence[float], photo: np.ndarray, *judged: Sequence[instances.Instance]
) -> tuple[np.ndarray, list[instances.Instance], list[instances.Instance]]:
    """The part of a picture around a box, twice as wide and high, and what is seen of the instances."""
    x, y, width, height = box
    rows = slice(max(int(y - height / 2), 0), int(y + 1.5 * height) + 1)
    columns = slice(max(int(x - width / 2), 0), int(x + 1.5 * width) + 1)
    parts = [[(one, decode_mask(one.mask)[rows, columns]) for one in own] for own in judged]
    real, guessed = ([one._replace(mask=encode_masks(cut[None])[0]) for one, cut in own if cut.any()] for own in parts)
    return photo[rows, columns], real, guessed


def judge(
    matching: Matching, image_id: int, not_annotated: Sequence[str] = ()
) -> tuple[list[instances.Instance], list[instances.Instance]]:
    """Ground truth and predictions of an image with their verdicts, but for those of classes that nobody annotated."""
    truth, predictions = [], []
    outcome, owner = matches.matched(matching.common, matching.crowd, matching.crowd, np.array([MATCH_IOU]))
    for category, name in zip(matching.category_ids, matching.classes, strict=True):
        if name in not_annotated:
            continue
        group = matching.group(image_id, category)
        for g in range(*matching.truth.starts[group : group + 2]):
            is_crowd, is_found = matching.crowd[g], owner[0, g] >= 0
            verdict = instances.NOT_COUNTED if is_crowd else instances.FOUND if is_found else instances.MISSED
            truth.append(instances.Instance(matching.rle(matching.truth, g), name, verdict=verdict))
        for d in range(*matching.found.starts[group : group + 2]):
            verdict, score = OF_OUTCOME[int(outcome[0, d])], float(matching.found.scores[d])
            predictions.append(instances.Instance(matching.rle(matching.found, d), name, score, verdict))
    return truth, predictions


def _ground_truth(evaluation: Evaluation, image_ids: set[int]) -> tuple[GroundTruth, Path]:
    """Some images of the ground truth that the result was computed on, and the folder of the images."""
    extra = evaluation.result.identity.extra
    ann_file = extra.get('ann_file', '')
    if evaluation.fingerprint is None or file_fingerprint(ann_file) != evaluation.fingerprint:
        raise InputError(
            f'annotation file must be as it was when evaluated, got {ann_file!r}, which is gone or another; '
            f'{AGAIN} (in {evaluation.path})'
        )
    source = GroundTruthSource.from_location(extra)
    truth = source.load().of_classes(evaluation.result.classes).of_images(image_ids)
    return truth, Path(str(source.image_folder))


def _detections(path: Path, image_ids: set[int]) -> Shapes:
    """The predictions of some images from a file of COCO results."""
    every = read_json(path, list[CocoResult], 'COCO results must lie beside the result file')
    chosen = [one for one in every if one.image_id in image_ids and (one.score or 0) >= SCORE_THRESHOLD]
    return Shapes.of(msgspec.to_builtins(chosen))
