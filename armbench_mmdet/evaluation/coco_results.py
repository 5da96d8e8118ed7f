"""COCO results of any model: their file, its images and categories found in the ground truth, and their evaluation."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from pycocotools import mask as mask_api
from tabulate import tabulate

from armbench_mmdet.datasets.coco import CocoCategory, CocoImage, CocoRle
from armbench_mmdet.datasets.ground_truth import GroundTruth, GroundTruthSource
from armbench_mmdet.datasets.index import open_index
from armbench_mmdet.datasets.release import CLASSES, IGNORED, CategoryMap, assign_categories, plain, require_existing
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import match_table
from armbench_mmdet.evaluation.metric import ArmbenchMetric, shapes_of
from armbench_mmdet.evaluation.protocol import IOU_TYPES, MAX_PER_IMAGE, Matching, Shapes
from armbench_mmdet.evaluation.result import FLAGS, PREDICTIONS, Result, file_fingerprint
from armbench_mmdet.files import read_json, sha256_of
from armbench_mmdet.masks.encode import decode_counts, fits_image
from armbench_mmdet.masks.runs import mask_nms, run_lengths

_SHOWN = 5
_BEYOND = 1.05  # a polygon that reaches farther, in image sizes, was made for a larger image
_SWAPPED_IMAGES = 200
_RECTANGLES = 0.9  # share of the masks that are filled boxes, from which on all are taken for boxes
_FLOOR = 0.1  # models that are made for AP give lower scores than this, too

Key = int | str


class CocoResult(msgspec.Struct, gc=False, omit_defaults=True):
    """One prediction; ``image_id`` is a number, a file name or its stem, ``category_id`` a number or a name."""

    image_id: Key
    category_id: Key
    score: float | None = None
    bbox: Annotated[list[float], msgspec.Meta(min_length=4, max_length=4)] | None = None
    segmentation: list[list[float]] | CocoRle | None = None
    file_name: str | None = None


class _NamedImage(msgspec.Struct, gc=False):
    id: Key
    file_name: str


class CocoResults(msgspec.Struct):
    """A file of predictions; in COCO's format a bare list, else with tables of its own as a data set has them."""

    annotations: list[CocoResult]
    images: list[_NamedImage] = []
    categories: list[CocoCategory] = []


def read_results(path: Path) -> CocoResults:
    """Read a file of predictions.

    Raises:
        InputError: It cannot be read, is no JSON, or holds something else; or some predictions have scores or masks
            and some have none.
    """
    shape = 'COCO results, a JSON list of image_id, category_id, score and segmentation'
    content = read_json(path, list[CocoResult] | CocoResults, f'predictions must be a readable file of {shape}')
    found = CocoResults(content) if isinstance(content, list) else content
    rows, count = found.annotations, len(found.annotations)
    maskless, scoreless = sum(not row.segmentation for row in rows), sum(row.score is None for row in rows)
    outlines = [ring for row in rows if isinstance(row.segmentation, list) for ring in row.segmentation if ring]
    is_small = bool(outlines) and max(map(max, outlines)) <= 1
    about_masks = 'a box is no mask, and is not made one: write the masks of the model, as polygons or RLE'
    faults = [
        (not rows, 'predictions must be given, got none'),
        (maskless, f'predictions must have masks, got {maskless} of {count} without a segmentation; {about_masks}'),
        (0 < scoreless < count, f'predictions must have a score, got {scoreless} of {count} without one'),
        (is_small, 'polygons must be in pixels, got none beyond 1; multiply by width and height'),
    ]
    for holds, fault in faults:
        if holds:
            raise InputError(f'{fault} (in {path})')
    return found


def matched_results(
    results: CocoResults, ground_truth: GroundTruth, category_labels: Mapping[int, int], category_map: CategoryMap
) -> tuple[list[dict[str, Any]], list[str]]:
    """Find the image and the class of each prediction, and bring its mask into compressed run lengths.

    They are returned by image, as :func:`~.metric.checked_prediction` makes them, with a line for each assumption.
    """
    image_ids = _image_ids(results, ground_truth.images)
    labels = _labels(results, category_labels, category_map)
    groups: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for number, (image_id, row) in enumerate(zip(image_ids, results.annotations, strict=True)):
        if (label := labels[row.category_id]) != IGNORED:
            size = ground_truth.images[image_id].height, ground_truth.images[image_id].width
            rle = _checked_mask(row.segmentation, size, f'(image {row.image_id!r}, entry {number})')
            x, y, width, height = row.bbox or mask_api.toBbox(rle).tolist()
            score = 1.0 if row.score is None else row.score
            groups[image_id].append(((x, y, x + width, y + height), score, label, rle))
    if not groups:
        raise InputError(f'--category-map must leave some predictions, got {category_map}')
    predictions = []
    for image_id, rows in groups.items():
        boxes, scores, kinds, masks = zip(*rows, strict=True)
        arrays = {'bboxes': np.array(boxes), 'scores': np.array(scores), 'labels': np.array(kinds)}
        predictions.append({'img_id': image_id, **arrays, 'masks': list(masks)})
    ignored = len(image_ids) - sum(map(len, groups.values()))
    boxless = sum(row.bbox is None for row in results.annotations)
    notes = [
        (ignored, f'{ignored} predictions of categories that are ignored were left out'),
        (boxless, f'{boxless} predictions have no box: those of their masks are scored as boxes'),
        (results.annotations[0].score is None, 'no prediction has a score: each counts as 1'),
    ]
    return predictions, [note for holds, note in notes if holds]


def _image_ids(results: CocoResults, images: Mapping[int, CocoImage]) -> list[int]:
    """The ground truth's id of each prediction's image.

    Where the file has names, in a table of its own or in each prediction, they decide. Else ids are numbers, or names
    with or without folders and suffix, of which a number stands for a stem of digits, as Ultralytics writes it.
    """
    ids_of: dict[Key, set[int]] = defaultdict(set)
    for image in images.values():
        stem = Path(image.file_name).stem
        for key in (image.file_name, stem, int(stem) if stem.isdecimal() else stem):
            ids_of[key].add(image.id)
    by_name = {key: min(ids) for key, ids in ids_of.items() if len(ids) == 1}
    table = {image.id: image.file_name for image in results.images}
    keys = [table.get(row.image_id, row.file_name or row.image_id) for row in results.annotations]
    numbers = {key: key if key in images else None for key in keys}
    names = {key: by_name.get(key, by_name.get(Path(key).stem if isinstance(key, str) else key)) for key in keys}
    whole = [ids for ids in (numbers, names) if None not in ids.values()]
    if not whole:
        unknown = min(([key for key, known in ids.items() if known is None] for ids in (numbers, names)), key=len)
        some = ', '.join(f'{image.id} ({image.file_name})' for image in list(images.values())[:2])
        raise InputError(
            f'image_id must be an image of the ground truth, by number or by file name, such as {some}; got '
            f'{", ".join(map(repr, unknown[:_SHOWN]))} ({len(unknown)} of {len(names)} images); is it another split?'
        )
    if whole[0] != whole[-1]:
        twice = next(key for key in keys if numbers[key] != names[key])
        raise InputError(
            f'image_id must be unambiguous, got {twice}, the number of one image of the ground truth and the name of '
            'another; write the file_name beside each image_id'
        )
    return [int(whole[0][key] or 0) for key in keys]


def _labels(results: CocoResults, category_labels: Mapping[int, int], category_map: CategoryMap) -> dict[Key, int]:
    """The label of each category of the predictions, or ``IGNORED``."""
    label_of: dict[Any, int] = {**{name: label for label, name in enumerate(CLASSES)}, None: IGNORED}
    wrong = {key: target for key, target in category_map.items() if target not in label_of}
    if wrong:
        raise InputError(f'--category-map must name {" or ".join(CLASSES)}, or None to leave out, got {wrong}')
    mapped = {plain(key): label_of[target] for key, target in category_map.items()}
    has_numbers = any(isinstance(key, int) for key in mapped)
    known = {**label_of, **({} if has_numbers else category_labels), **mapped}
    names: dict[Key, Key] = {category.id: category.name for category in results.categories}
    counts = Counter(row.category_id for row in results.annotations)
    labels = {key: mapped.get(key, known.get(plain(names.get(key, key)))) for key in counts}
    unknown = [key for key in counts if labels[key] is None]
    if unknown:
        offered = ', '.join(f'{key} = {CLASSES[label]}' for key, label in category_labels.items() if label != IGNORED)
        shown = ', '.join(f'{names.get(key, key)!r} ({counts[key]} predictions)' for key in unknown[:_SHOWN])
        raise InputError(
            f"category_id must be one of the ground truth's ({offered}) or be named {' or '.join(CLASSES)}, got "
            f'{shown}; say what each is with, for example, --category-map "{dict.fromkeys(counts, CLASSES[-1])}", None '
            'to leave one out'
        )
    return {key: label for key, label in labels.items() if label is not None}


def _checked_mask(segmentation: Any, size: tuple[int, int], where: str) -> dict[str, Any]:
    """A mask as compressed run lengths."""
    if isinstance(segmentation, CocoRle):
        counts = segmentation.counts
        lengths = decode_counts(counts) if isinstance(counts, str) else counts
        if not fits_image(lengths, segmentation.size, *size):
            raise InputError(
                f'mask size must be that of the image, {list(size)} (height, width), and its run lengths must add up '
                f'to the {size[0] * size[1]} pixels, got {list(segmentation.size)} {where}; scale the masks to the '
                'image before they are encoded'
            )
        return run_lengths({'size': list(size), 'counts': counts}, *size)
    # Fewer points have no area, and COCO's code would take four numbers for a box.
    rings = [ring for ring in segmentation if len(ring) >= 6 and len(ring) % 2 == 0]
    if not rings:
        raise InputError(f'a mask must have a polygon of three points, got {segmentation} {where}')
    x, y = np.abs(np.concatenate([np.reshape(ring, (-1, 2)) for ring in rings])).max(0).tolist()
    if max(x / size[1], y / size[0]) > _BEYOND:
        raise InputError(
            f'polygons must lie in the image, {size[1]} px wide and {size[0]} px high, got x up to {x:g} and y up to '
            f'{y:g} {where}; scale them to the image'
        )
    return run_lengths(rings, *size)


def evaluate_results(
    path: Path,
    source: GroundTruthSource,
    out_dir: Path | None = None,
    category_map: CategoryMap | None = None,
    fingerprint: str | None = None,
    mask_nms_iou: float | None = None,
) -> Result:
    """Evaluate a file of predictions as :class:`~armbench_mmdet.evaluation.metric.ArmbenchMetric` does a model's.

    Args:
        path: The file.
        source: The ground truth.
        out_dir: Where the result file, match tables and COCO results go; None writes nothing.
        category_map: What the predictions' categories are, by number or by name: ``tote``, ``object``, or None to leave
            its predictions out. With numbers, those of the ground truth do not count; names count there, too.
        fingerprint: What the digest of the annotation file must be, with or without ``sha256:``.
        mask_nms_iou: See :func:`~armbench_mmdet.masks.runs.mask_nms`.

    Returns:
        The result; what may be honest but should be known stands in ``identity.extra['flags']``.

    Raises:
        InputError: The predictions cannot be scored as they are, or are of other data.
    """
    results = read_results(path)
    require_existing(Path(source.ann_file), 'annotation file')
    known = file_fingerprint(source.ann_file)
    if fingerprint and fingerprint.removeprefix('sha256:') != str(known).removeprefix('sha256:'):
        raise InputError(
            f'--data-fingerprint must be that of the annotation file, {known}, got {fingerprint!r}: the predictions '
            f'are of other data than {source.ann_file}'
        )
    category_map = category_map or {}
    names: CategoryMap = {key: target for key, target in category_map.items() if isinstance(key, str)}
    source = replace(source, category_map=names or None)
    ground_truth = source.load()
    labels = assign_categories(open_index(source.ann_file, source.cache_dir), names).labels
    try:
        predictions, notes = matched_results(results, ground_truth, labels, category_map)
    except InputError as error:
        raise InputError(f'{error} (in {path})') from error
    if mask_nms_iou is not None:
        notes.append(_suppress(predictions, mask_nms_iou))
    flags = [*notes, *flags_of(shapes_of(predictions, [*ground_truth.categories]), ground_truth)]
    extra = {PREDICTIONS: str(path.absolute()), 'predictions_sha256': sha256_of(path), FLAGS: flags}
    metric = ArmbenchMetric(ground_truth=ground_truth, identity={'extra': extra}, log_table=False)
    metric.dataset_meta = {'classes': CLASSES, **source.as_metainfo()}
    if out_dir is not None:
        metric.write_to(out_dir, {})
    metric.process(None, [{'img_id': one['img_id'], 'pred_instances': one} for one in predictions])
    metric.evaluate(len(ground_truth.images))
    assert metric.result is not None
    return metric.result


def _suppress(predictions: Sequence[dict[str, Any]], iou: float) -> str:
    """Leave out what mask NMS takes, and say how much."""
    before = after = 0
    for one in predictions:
        kept = mask_nms(one['masks'], tuple(one['masks'][0]['size']), one['scores'], one['labels'], iou)
        before, after = before + len(one['masks']), after + len(kept)
        one |= {key: one[key][kept] for key in ('bboxes', 'scores', 'labels')}
        one['masks'] = [one['masks'][row] for row in kept]
    return f'mask NMS at IoU {iou:g} left out {before - after} of {before} predictions'


def flags_of(detections: Shapes, ground_truth: GroundTruth) -> list[str]:
    """Look for what fools a reader of the score, though it may be honest, a line each; masks are run lengths."""
    image_ids, counts = np.unique(detections.image_ids, return_counts=True)
    most, many, total = counts.max(), (counts > MAX_PER_IMAGE).sum(), len(ground_truth.images)
    silent = total - len(image_ids)
    chosen = image_ids[:: -(-len(image_ids) // _SWAPPED_IMAGES)].tolist()
    part, names = ground_truth.of_images(chosen), ' and '.join(ground_truth.categories.values())
    swapped = detections._replace(category_ids=3 - detections.category_ids)
    score, other = (match_table(Matching(part, one, 'segm')).ap() or 0.0 for one in (detections, swapped))
    gain = f'{other:.3f} instead of {score:.3f} (on {len(chosen)} images)'
    low, high = detections.scores.min(), detections.scores.max()
    sides = np.array(mask_api.toBbox(list(detections.masks)), np.float64)[:, 2:]
    areas = np.array([mask_api.area(mask) for mask in detections.masks], np.float64)  # of 256 and more at once it fails
    wide = sides.min(1) > 2  # a sliver fills its box whatever it shows
    filled = (areas == sides.prod(1))[wide].sum() / max(wide.sum(), 1)
    flags = [
        (filled >= _RECTANGLES, f'{filled:.0%} of the masks are rectangles: boxes written as masks?'),
        (_FLOOR <= low < high, f'no score is below {low:.3g}: filtered? What was cut can only have lowered AP'),
        (many, f'{many} images have more than {MAX_PER_IMAGE} predictions, up to {most}: the best of each class count'),
        (silent, f'{silent} of {total} images have no prediction: nothing found there, or not predicted?'),
        (other > score, f'with {names} swapped, the mAP of masks is {gain}: is a --category-map missing?'),
    ]
    return [flag for holds, flag in flags if holds]


def drift_table(result: Result, other: Result) -> str:
    """What differs between two results on the same data: each number of both, and the difference."""
    rows = []
    for iou_type in IOU_TYPES:
        for key, value in result.scores[iou_type].numbers().items():
            if value is not None and (peer := other.scores[iou_type].numbers()[key]) is not None:
                rows.append([iou_type, key, f'{value:.6f}', f'{peer:.6f}', f'{value - peer:+.6f}'])
    return tabulate(rows, ['', '', 'this', 'other', 'drift'], tablefmt='plain', disable_numparse=True)
