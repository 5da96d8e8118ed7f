"""COCO evaluation: our protocol against pycocotools, as mmdet's ``CocoMetric`` uses it.

Both start from ground truth and detections in memory, as after a test run, and end with the twelve numbers; these must
agree to 1e-9. Outlines of 24 corners in 2448×2048 images, about 11 instances and 45 detections each. Ours also with
everything that a result file holds but the intervals, which have a row of their own: there is nothing to hold them
against, so the peer's time is that of its twelve numbers. The peak memory of a process, imports included, that reads
the annotation file and an array of boxes and ends with the twelve numbers.
"""

import contextlib
import copy
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks._memory import peak_mb

HEIGHT, WIDTH, CORNERS = 2048, 2448, 24
CASES = {True: (200, 2_200, 9_000), False: (6_600, 73_000, 300_000)}
"""Images, instances and detections, small or not."""


def rows(small: bool = False) -> Iterator[dict[str, Any]]:
    """Yield rows of time for boxes and for masks, and one of memory for boxes."""
    from armbench_mmdet.evaluation.matches import group_intervals

    images, instances, detections = CASES[small]
    truth, results = make_data(images, instances, detections)
    for iou_type, key in (('bbox', 'bbox'), ('segm', 'segmentation')):
        own = [{k: r[k] for k in ('image_id', 'category_id', 'score', key)} for r in results]
        _everything(*make_data(20, 60, 200), iou_type)  # compile and import
        ours, ours_s = _timed(_our_numbers, truth, own, iou_type)
        whole, whole_s = _timed(_everything, truth, own, iou_type)
        _, drawn_s = _timed(group_intervals, [whole])
        peer_input = copy.deepcopy(truth), copy.deepcopy(own)
        peer, peer_s = _timed(_peer_numbers, *peer_input, iou_type)
        equal = bool(np.allclose(ours, peer, rtol=0, atol=1e-9))
        size = f'{images:,} images, {instances:,} instances, {len(own):,} detections'
        for what, seconds in (('twelve numbers', ours_s), ('whole result', whole_s), ('1,000 draws', drawn_s)):
            yield {
                'name': 'eval',
                'case': f'{iou_type}, {what}, {size}',
                'ours': seconds,
                'peer': peer_s,
                'unit': 's',
                'ratio': peer_s / seconds,
                'equal': equal if what == 'twelve numbers' else None,
            }
        if iou_type == 'bbox':
            yield {'name': 'eval', 'case': f'bbox, peak memory, {size}', 'unit': 'MB', **_memory(truth, own)}


def _timed(function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    value = function(*args)
    return value, time.perf_counter() - start


def _memory(truth: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, 'test.json').write_text(json.dumps(truth))
        columns = [[r['image_id'], *r['bbox'], r['score'], r['category_id']] for r in results]
        np.save(Path(folder, 'results.npy'), np.array(columns))
        commands = ([sys.executable, '-m', __name__, which, folder] for which in ('ours', 'peer'))
        options: dict[str, Any] = {'cwd': Path(__file__).parents[1], 'capture_output': True, 'text': True}
        printed = [subprocess.run(one, check=True, **options).stdout for one in commands]
    (ours, ours_mb), (peer, peer_mb) = (json.loads(text.splitlines()[-1]) for text in printed)
    equal = bool(np.allclose(ours, peer, rtol=0, atol=1e-9))
    return {'ours': ours_mb, 'peer': peer_mb, 'ratio': peer_mb / ours_mb, 'equal': equal}


def _measure(which: str, folder: Path) -> tuple[list[float], float]:
    """The twelve numbers of boxes on disk, and the peak memory of this process in MB."""
    results = np.load(folder / 'results.npy')
    if which == 'peer':
        from pycocotools.coco import COCO

        with contextlib.redirect_stdout(io.StringIO()):
            truth_api = COCO(folder / 'test.json')
            numbers = _coco_numbers(truth_api, truth_api.loadRes(results), 'bbox')
    else:
        from armbench_mmdet.datasets.ground_truth import GroundTruthSource
        from armbench_mmdet.evaluation.protocol import Matching, Shapes

        image_ids, *_, scores, category_ids = results.T
        ids = image_ids.astype(np.int64), category_ids.astype(np.int64)
        truth = GroundTruthSource(str(folder / 'test.json'), cache_dir=str(folder)).load()
        numbers = _twelve_numbers(Matching(truth, Shapes(*ids, scores, results[:, 1:5], ()), 'bbox'))
    return numbers.tolist(), peak_mb()


def _our_numbers(truth: dict[str, Any], results: list[dict[str, Any]], iou_type: str) -> np.ndarray:
    from armbench_mmdet.datasets.ground_truth import GroundTruth
    from armbench_mmdet.evaluation.protocol import Matching, Shapes

    return _twelve_numbers(Matching(GroundTruth.of(truth), Shapes.of(results), iou_type))


def _twelve_numbers(matching: Any) -> np.ndarray:
    from armbench_mmdet.evaluation.matches import match_table, sized_tables, summary

    by_size = sized_tables(matching)
    values = [*summary(match_table(matching), by_size).values(), *(one.ar() for one in by_size.values())]
    return np.array([-1.0 if value is None else value for value in values])


def _everything(truth: dict[str, Any], results: list[dict[str, Any]], iou_type: str) -> Any:
    from armbench_mmdet.datasets.ground_truth import GroundTruth
    from armbench_mmdet.evaluation.anatomy import error_anatomy, operations, pick_scores, segmentation_errors
    from armbench_mmdet.evaluation.matches import match_table, scores_of_type
    from armbench_mmdet.evaluation.protocol import Matching, Shapes

    matching = Matching(GroundTruth.of(truth), Shapes.of(results), iou_type, is_across=iou_type == 'segm')
    table = match_table(matching)
    scores_of_type(matching, table)
    if iou_type == 'segm':
        segmentation_errors(matching)
        operations(matching, table, {})
        pick_scores(matching, 'object')
        error_anatomy(matching)
        boundaries = matching.of_boundaries()
        scores_of_type(boundaries, match_table(boundaries))
    return table


def _peer_numbers(truth: dict[str, Any], results: list[dict[str, Any]], iou_type: str) -> np.ndarray:
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        truth_api = COCO()
        truth_api.dataset = truth
        truth_api.createIndex()
        return _coco_numbers(truth_api, truth_api.loadRes(results), iou_type)


def _coco_numbers(truth_api: Any, results_api: Any, iou_type: str) -> np.ndarray:
    from pycocotools.cocoeval import COCOeval

    evaluator = COCOeval(truth_api, results_api, iou_type)
    evaluator.params.maxDets = [1, 10, 100]
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return np.asarray(evaluator.stats)


def make_data(images: int, instances: int, detections: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth with polygons, and detections with boxes and run lengths around them and elsewhere."""
    from pycocotools import mask as mask_api

    rng = np.random.default_rng(0)
    image_of = rng.integers(0, images, instances)
    outlines = _outlines(rng, np.column_stack([rng.uniform(0, WIDTH, instances), rng.uniform(0, HEIGHT, instances)]))
    annotations = []
    for i, (image, outline) in enumerate(zip(image_of.tolist(), outlines, strict=True)):
        box = _box(outline)
        annotations.append(
            {'id': i + 1, 'image_id': image, 'category_id': 1 + int(i % 10 > 0), 'bbox': box, 'iscrowd': 0}
            | {'area': 0.8 * box[2] * box[3], 'segmentation': [outline.ravel().tolist()]}
        )
    results = []
    for i in rng.integers(0, instances, detections).tolist():
        outline = outlines[i] + rng.normal(0, rng.choice([3, 15, 60]), (CORNERS, 2)) * 0.3 + rng.normal(0, 8, 2)
        outline = outline.clip(0, [WIDTH, HEIGHT])
        rle = mask_api.merge(mask_api.frPyObjects([outline.ravel().tolist()], HEIGHT, WIDTH))
        rle = {'size': [HEIGHT, WIDTH], 'counts': rle['counts'].decode()}
        own = annotations[i]
        result = {'image_id': own['image_id'], 'category_id': own['category_id'], 'bbox': _box(outline)}
        results.append({**result, 'score': round(float(rng.random()), 3), 'segmentation': rle})
    header = [{'id': i, 'file_name': f'{i}.jpg', 'height': HEIGHT, 'width': WIDTH} for i in range(images)]
    categories = [{'id': 1, 'name': 'tote'}, {'id': 2, 'name': 'object'}]
    return {'info': {}, 'images': header, 'annotations': annotations, 'categories': categories}, results


def _outlines(rng: np.random.Generator, centres: np.ndarray) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    radii = rng.uniform(30, 250, (len(centres), 1)) * rng.uniform(0.7, 1.0, (len(centres), CORNERS))
    points = centres[:, None] + radii[..., None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return points.clip(0, [WIDTH, HEIGHT])


def _box(outline: np.ndarray) -> list[float]:
    low, high = outline.min(0), outline.max(0)
    return [*low.tolist(), *(high - low).clip(1).tolist()]


if __name__ == '__main__':
    import armbench_mmdet  # noqa: F401  # before mmdet

    print(json.dumps(_measure(sys.argv[1], Path(sys.argv[2]))))
