"""COCO results of any model: their file, its images and categories found in the ground truth, and their evaluation."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
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
from armbench_mmdet.datasets.release import CLASSES, IGNORED, CategoryMap, assign_categories, require_existing
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.flags import flags_of, mask_ap
from armbench_mmdet.evaluation.metric import ArmbenchMetric
from armbench_mmdet.evaluation.predictions import shapes_of
from armbench_mmdet.evaluation.protocol import MAX_PER_IMAGE
from armbench_mmdet.evaluation.result import FLAGS, PREDICTIONS, Result, file_fingerprint
from armbench_mmdet.files import sha256_of
from armbench_mmdet.masks.encode import decode_counts, fits_image
from armbench_mmdet.masks.runs import mask_nms, run_lengths

_SHOWN = 5
_BEYOND = 1.05
"""A polygon that reaches farther, in image sizes, was made for a larger image."""
_SELFTEST_IMAGES = 4
_CATEGORY_IDS = range(1, len(CLASSES) + 1)

Key = int | str


class CocoResult(msgspec.Struct, gc=False):
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
    try:
        content = path.read_bytes()
        if content.lstrip()[:1] == b'[':
            found = CocoResults(msgspec.json.decode(content, type=list[CocoResult]))
        else:
            found = msgspec.json.decode(content, type=CocoResults)
    except OSError as error:
        raise InputError(f'predictions must be a readable file, got {error.strerror!r} (in {path})') from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f'predictions must be COCO results, a JSON list of image_id, category_id, score and segmentation: {error} '
            f'(in {path})'
        ) from error
    rows = found.annotations
    if not rows:
        raise InputError(f'predictions must be given, got none (in {path})')
    maskless = sum(not row.segmentation for row in rows)
    if maskless:
        raise InputError(
            f'predictions must have masks, got {maskless} of {len(rows)} without a segmentation (in {path}): a box is '
            'no mask, and is not made one; write the masks of the model, as polygons or RLE'
        )
    scoreless = sum(row.score is None for row in rows)
    if 0 < scoreless < len(rows):
        raise InputError(f'predictions must have a score, got {scoreless} of {len(rows)} without one (in {path})')
    outlines = [ring for row in rows if isinstance(row.segmentation, list) for ring in row.segmentation if ring]
    if outlines and max(map(max, outlines)) <= 1:
        raise InputError(f'polygons must be in pixels, got none beyond 1 (in {path}); multiply by width and height')
    return found


def matched_results(
    path: Path,
    results: CocoResults,
    ground_truth: GroundTruth,
    category_labels: Mapping[int, int],
    category_map: CategoryMap,
    image_key: str = 'auto',
) -> tuple[list[dict[str, Any]], list[str]]:
    """Find the image and the class of each prediction, and bring its mask into compressed run lengths.

    Returns:
        One prediction for each image that has some, as :func:`~.predictions.checked_prediction` makes them; and what
        was assumed or left out, a line each.
    """
    keys, ids = _image_ids(path, results, list(ground_truth.images.values()), image_key)
    labels = _labels(path, results, category_labels, category_map)
    groups: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    thin = boxless = 0
    for number, (key, row) in enumerate(zip(keys, results.annotations, strict=True)):
        image, label = ground_truth.images[ids[key]], labels[row.category_id]
        if label == IGNORED:
            continue
        where = f'(image {key!r}, entry {number} of {path})'
        rle, dropped = _checked_mask(row.segmentation, (image.height, image.width), where)
        x, y, width, height = row.bbox or mask_api.toBbox(rle).tolist()
        thin, boxless = thin + dropped, boxless + (row.bbox is None)
        score = 1.0 if row.score is None else row.score
        groups[image.id].append(((x, y, x + width, y + height), score, label, rle))
    if not groups:
        raise InputError(f'--category-map must leave some predictions, got {category_map} (in {path})')
    predictions = []
    for image_id, rows in groups.items():
        boxes, scores, own_labels, masks = zip(*rows, strict=True)
        arrays = {'bboxes': np.array(boxes), 'scores': np.array(scores), 'labels': np.array(own_labels)}
        predictions.append({'img_id': image_id, **arrays, 'masks': list(masks)})
    ignored = len(keys) - sum(map(len, groups.values()))
    notes = {
        f'{ignored} predictions of categories that are ignored were left out': ignored,
        f'{thin} polygons of fewer than three points were left out': thin,
        f'{boxless} predictions have no box: those of their masks are scored as boxes': boxless,
        'no prediction has a score: each counts as 1': results.annotations[0].score is None,
    }
    return predictions, [note for note, holds in notes.items() if holds]


def _image_ids(
    path: Path, results: CocoResults, images: Sequence[CocoImage], image_key: str
) -> tuple[list[Key], dict[Key, int]]:
    """What each prediction calls its image, and the ground truth's id of each of these.

    Where the file has names, in a table of its own or in each prediction, they decide. Else ids are numbers, or names
    with or without folders and suffix, of which a number stands for a stem of digits, as Ultralytics writes it.
    """
    ids_of: dict[Key, set[int]] = defaultdict(set)
    for image in images:
        name = Path(image.file_name)
        digits = [int(name.stem)] if name.stem.isdecimal() else []
        keys: list[Key] = [image.file_name, name.name, name.stem, *digits]
        for key in keys:
            ids_of[key].add(image.id)
    by_name = {key: min(ids) for key, ids in ids_of.items() if len(ids) == 1}
    by_number: dict[Key, int] = {image.id: image.id for image in images}

    def named(key: Key) -> int | None:
        parts = [key, Path(key).name, Path(key).stem] if isinstance(key, str) else [key]
        return next((by_name[part] for part in parts if part in by_name), None)

    table = {image.id: image.file_name for image in results.images}
    if image_key != 'auto':
        keys = [row.image_id for row in results.annotations]
    elif table:
        keys = [table.get(row.image_id, f'{row.image_id}, which its images lack') for row in results.annotations]
    else:
        keys = [row.file_name or row.image_id for row in results.annotations]
    readings: dict[str, Callable[[Key], int | None]] = {'number': by_number.get, 'name': named}
    chosen = [readings[image_key]] if image_key != 'auto' else readings.values()
    found = [{key: find(key) for key in dict.fromkeys(keys)} for find in chosen]
    whole = [ids for ids in found if None not in ids.values()]
    if len(whole) > 1 and whole[0] != whole[1]:
        twice = next(key for key in keys if whole[0][key] != whole[1][key])
        raise InputError(
            f'image_id must be unambiguous, got {twice}, the number of one image of the ground truth and the name of '
            f'another (in {path}); say which with --image-ids number or --image-ids name'
        )
    if not whole:
        unknown = min(([key for key, known in ids.items() if known is None] for ids in found), key=len)
        shown = ', '.join(map(repr, unknown[:_SHOWN])) + (' …' if len(unknown) > _SHOWN else '')
        some = ', '.join(f'{image.id} ({image.file_name})' for image in images[:2])
        raise InputError(
            f'image_id must be an image of the ground truth, by number or by file name, such as {some}; got {shown} '
            f'({len(unknown)} of {len(found[0])} images, in {path}); is it another split?'
        )
    return keys, {key: known for key, known in whole[0].items() if known is not None}


def _labels(
    path: Path, results: CocoResults, category_labels: Mapping[int, int], category_map: CategoryMap
) -> dict[Key, int]:
    """The label of each category of the predictions, or ``IGNORED``."""
    wrong = {key: target for key, target in category_map.items() if target not in (*CLASSES, None)}
    if wrong:
        raise InputError(f'--category-map must name {" or ".join(CLASSES)}, or None to leave out, got {wrong}')
    targets = {_plain(key): target for key, target in category_map.items()}
    own_names: dict[Key, Key] = {category.id: category.name for category in results.categories}

    def label(key: Key) -> int | None:
        name = own_names.get(key, key)
        if key in targets or not isinstance(name, int):
            target = targets.get(key, targets.get(_plain(name), _plain(name)))
            if target is None:
                return IGNORED
            return CLASSES.index(target) if target in CLASSES else None
        return None if any(isinstance(known, int) for known in targets) else category_labels.get(name)

    counts = Counter(row.category_id for row in results.annotations)
    labels = {key: label(key) for key in counts}
    unknown = [key for key in counts if labels[key] is None]
    if unknown:
        known = ', '.join(f'{key} = {CLASSES[value]}' for key, value in category_labels.items() if value != IGNORED)
        shown = ', '.join(f'{own_names.get(key, key)!r} ({counts[key]} predictions)' for key in unknown[:_SHOWN])
        remedy = {**category_map, **dict.fromkeys(counts if not category_map else unknown, 'object')}
        raise InputError(
            f"category_id must be one of the ground truth's ({known}) or be named {' or '.join(CLASSES)}, got {shown} "
            f'(in {path}); say what each is with, for example, --category-map "{remedy}", None to leave one out'
        )
    return {key: value for key, value in labels.items() if value is not None}


def _plain(name: Key) -> Key:
    return name.strip().casefold() if isinstance(name, str) else name


def _checked_mask(segmentation: Any, size: tuple[int, int], where: str) -> tuple[dict[str, Any], int]:
    """A mask as compressed run lengths, and how many of its polygons were left out for want of points."""
    if isinstance(segmentation, CocoRle):
        counts = segmentation.counts
        if segmentation.size != size:
            raise InputError(
                f'mask size must be that of the image, {list(size)} (height, width), got {list(segmentation.size)} '
                f'{where}; scale the masks to the image before they are encoded'
            )
        lengths = decode_counts(counts) if isinstance(counts, str) else counts
        if not fits_image(lengths, size, *size):
            raise InputError(f'run lengths must add up to the {size[0] * size[1]} pixels of the image {where}')
        return run_lengths({'size': list(size), 'counts': counts}, *size), 0
    # COCO's code would take four numbers for a box.
    rings = [ring for ring in segmentation if len(ring) >= 6 and len(ring) % 2 == 0]
    if not rings:
        raise InputError(f'a mask must have a polygon of three points, got {segmentation} {where}')
    x, y = np.abs(np.concatenate([np.reshape(ring, (-1, 2)) for ring in rings])).max(0).tolist()
    if max(x / size[1], y / size[0]) > _BEYOND:
        raise InputError(
            f'polygons must lie in the image, {size[1]} px wide and {size[0]} px high, got x up to {x:g} and y up to '
            f'{y:g} {where}; scale them to the image'
        )
    return run_lengths(rings, *size), len(segmentation) - len(rings)


def selftest(ground_truth: GroundTruth) -> None:
    """Send the ground truth of a few images through all this as predictions; it must score 1.0.

    Raises:
        InputError: It scores less.
    """
    counts = Counter(ground_truth.image_ids[~ground_truth.crowds].tolist())
    chosen = [image for image, count in counts.items() if count <= MAX_PER_IMAGE][:_SELFTEST_IMAGES]
    if not chosen:
        return
    part, rows = ground_truth.of_images(chosen), []
    for row in np.flatnonzero(~part.crowds).tolist():
        image = part.images[int(part.image_ids[row])]
        size = image.height, image.width
        code = run_lengths(part.masks[row], *size)['counts']
        mask = CocoRle(size, code if isinstance(code, str) else code.decode())
        rows.append(CocoResult(image.id, int(part.category_ids[row]), 1.0, part.boxes[row].tolist(), mask))
    labels = {number: label for label, number in enumerate(_CATEGORY_IDS)}
    predictions, _ = matched_results(Path('the ground truth'), CocoResults(rows), part, labels, {})
    score = mask_ap(part, shapes_of(predictions, _CATEGORY_IDS))
    if score is None or score < 1 - 1e-9:
        raise InputError(
            f'ground truth must score 1.0 as predictions, got a mAP of {score} on images {chosen}: no result can be '
            'trusted'
        )


def evaluate_results(
    path: Path,
    source: GroundTruthSource,
    out_dir: Path | None = None,
    category_map: CategoryMap | None = None,
    image_key: str = 'auto',
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
        image_key: What the image ids are: ``number``, ``name``, or ``auto`` for what fits.
        fingerprint: What the digest of the annotation file must be, with or without ``sha256:``.
        mask_nms_iou: See :func:`~armbench_mmdet.masks.runs.mask_nms`; None leaves the predictions as they are.

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
    selftest(ground_truth)
    labels = assign_categories(open_index(source.ann_file, source.cache_dir), names).labels
    predictions, notes = matched_results(path, results, ground_truth, labels, category_map, image_key)
    if mask_nms_iou is not None:
        notes.append(_suppress(predictions, mask_nms_iou))
    flags = [*notes, *flags_of(shapes_of(predictions, _CATEGORY_IDS), ground_truth)]
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


def drift_table(result: Result, other: Result) -> str:
    """What differs between two results on the same data: each number of both, and the difference."""
    rows = []
    for iou_type, scores in result.scores.items():
        for key, value in scores.numbers().items():
            peer = other.scores[iou_type].numbers()[key]
            if value is not None and peer is not None:
                rows.append([iou_type, key, f'{value:.6f}', f'{peer:.6f}', f'{value - peer:+.6f}'])
    return tabulate(rows, ['', '', 'this', 'other', 'drift'], tablefmt='plain', disable_numparse=True)
