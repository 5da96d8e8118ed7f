"""Scores of parts of the data, by object size and density; error rates of instances; speed.

**Size** in two sets of bins. ``coco``: area up to 32², 96² and more pixels, for comparison with other data sets.
``relative``: area up to 1/300, 3/100 and more of the image area; these are COCO's edges divided by the 640×480 pixels
of the images they were chosen for. At 2448×2048 they lie at 129² and 388² pixels.

**Density** by the number of instances in the image, tote included, crowds not: 1–5, 6–10, 11–15, 16–20, 21–30, 31 and
more. Images without any instance are in no bin: they have no ground truth to find.

In a size bin, as in COCO, ground truth outside the bin is ignored, and so are unmatched detections outside it.

**Errors** of a picking robot: one object predicted as several, several as one.

Every instance gets exactly one verdict, after Hoover et al., "An experimental comparison of range image segmentation
algorithms", PAMI 1996, with tolerance 0.5. Only predictions of the instance's class with a score of at least 0.5
count: what a robot would act on. With |·| the number of pixels, the first that holds:

- **detected**: some prediction P has IoU(P, G) > 0.5.
- **over-segmented**: at least two predictions lie mostly inside G, |P ∩ G| > 0.5 |P| each, and together cover most of
  it, |∪P ∩ G| > 0.5 |G|.
- **under-segmented**: some prediction P covers most of G and of at least one other instance H of the class,
  |P ∩ G| > 0.5 |G| and |P ∩ H| > 0.5 |H|.
- **missed**: none of these.

A rate is the share of a class's instances; the four add up to 1. Crowds are neither counted nor looked at.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as mask_api

from armbench_mmdet.evaluation.protocol import SIZE_EDGES_FRAC, SIZE_EDGES_PX, Accumulated, Matching, by_image_and_class
from armbench_mmdet.evaluation.result import (
    ClassScores,
    Interval,
    SegmentationErrors,
    Speed,
    StratumScores,
    Times,
    TypeScores,
)

try:
    import resource
except ImportError:  # not on every system; the peak is then unknown
    resource = None  # type: ignore[assignment]

BYTES_PER_MB = 2**20


DENSITY_STARTS = (1, 6, 11, 16, 21, 31)
DENSITY_NAMES = ('1-5', '6-10', '11-15', '16-20', '21-30', '31+')


def density_name(instances: int) -> str | None:
    """The name of the bin that an image with so many instances falls into, None for an empty image."""
    return DENSITY_NAMES[bisect.bisect(DENSITY_STARTS, instances) - 1] if instances else None


def density_of_images(ground_truth: Mapping[str, Any]) -> dict[int, str | None]:
    """The density bin of every image by its id."""
    counts = Counter(a['image_id'] for a in ground_truth['annotations'] if not a.get('iscrowd'))
    return {image['id']: density_name(counts[image['id']]) for image in ground_truth['images']}


def scores_of_type(matching: Matching, confidence: dict[str, Interval] | None = None) -> TypeScores:
    """Everything the result file holds under one IoU type."""
    overall = matching.accumulate()
    counted = [a for a in matching.annotations if not a.get('iscrowd')]
    per_class_id = Counter(annotation['category_id'] for annotation in counted)
    names = zip(matching.classes, matching.category_ids, strict=True)
    return TypeScores(
        **overall.summary(),
        per_class={name: ClassScores(**overall.summary(name), instances=per_class_id[i]) for name, i in names},
        per_size={
            'coco': _sizes(overall, counted, dict.fromkeys(matching.images, 1.0), SIZE_EDGES_PX),
            'relative': _sizes(
                matching.accumulate(relative_areas=True),
                counted,
                {i: float(image['height'] * image['width']) for i, image in matching.images.items()},
                SIZE_EDGES_FRAC,
            ),
        },
        per_density=_densities(matching, counted),
        confidence=confidence,
    )


def _sizes(
    accumulated: Accumulated, counted: list[dict[str, Any]], unit_px: Mapping[int, float], edges: tuple[float, float]
) -> dict[str, StratumScores]:
    # Both edges belong to both neighbours, as in COCO's own ranges.
    ranges = {'s': (0.0, edges[0]), 'm': (edges[0], edges[1]), 'l': (edges[1], float('inf'))}
    bins = {}
    for name, (low, high) in ranges.items():
        inside = [a for a in counted if low <= a['area'] / unit_px[a['image_id']] <= high]
        bins[name] = _stratum(accumulated, inside, {a['image_id'] for a in inside}, area=name)
    return bins


def _densities(matching: Matching, counted: list[dict[str, Any]]) -> dict[str, StratumScores]:
    bin_of = density_of_images({'images': matching.images.values(), 'annotations': counted})
    scores = {}
    for name in DENSITY_NAMES:
        image_ids = {i for i, own in bin_of.items() if own == name}
        inside = [a for a in counted if a['image_id'] in image_ids]
        scores[name] = _stratum(matching.accumulate(image_ids) if image_ids else None, inside, image_ids)
    return scores


def _stratum(
    accumulated: Accumulated | None, inside: list[dict[str, Any]], image_ids: Iterable[int], area: str = 'all'
) -> StratumScores:
    images = len(set(image_ids))
    if accumulated is None:
        return StratumScores(instances=len(inside), images=images)
    return StratumScores(
        mAP=accumulated.ap(area=area),
        mAP_50=accumulated.ap(0.5, area=area),
        mAP_75=accumulated.ap(0.75, area=area),
        AR_100=accumulated.ar(area=area),
        per_class={name: accumulated.ap(area=area, class_name=name) for name in accumulated.classes},
        instances=len(inside),
        images=images,
    )


def speed_summary(predictions: Sequence[Mapping[str, Any]], density: Mapping[int, str | None]) -> Speed | None:
    """The result file's ``speed``, or None if nothing was timed.

    Args:
        predictions: With ``img_id`` and, where timed, ``seconds``.
        density: The density bin of each image.
    """
    times_ms = {p['img_id']: 1000 * p['seconds'] for p in predictions if 'seconds' in p}
    if not times_ms:
        return None
    by_density = defaultdict(list)
    for image_id, time_ms in times_ms.items():
        by_density[density.get(image_id)].append(time_ms)
    on_gpu = torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0
    return Speed(
        **_median_and_p95(list(times_ms.values())),
        images=len(times_ms),
        per_density={name: Times(**_median_and_p95(by_density[name])) for name in DENSITY_NAMES if name in by_density},
        peak_memory_mb=peak_memory_mb(),
        peak_gpu_memory_mb=torch.cuda.max_memory_allocated() / BYTES_PER_MB if on_gpu else None,
        device=torch.cuda.get_device_name() if on_gpu else 'cpu',
    )


def peak_memory_mb() -> float | None:
    """The process's largest resident memory so far, or None where the system does not say."""
    if resource is None:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux


def _median_and_p95(times_ms: list[float]) -> dict[str, float]:
    return {'median_ms': float(np.median(times_ms)), 'p95_ms': float(np.percentile(times_ms, 95))}


SCORE_THRESHOLD = 0.5
OVERLAP = 0.5
VERDICTS = ('detected', 'over_segmented', 'under_segmented', 'missed')


def segmentation_errors(matching: Matching) -> dict[str, SegmentationErrors]:
    """The share of each class's instances under each verdict, None without instances, and their number.

    Args:
        matching: Of masks.
    """
    instances = by_image_and_class([a for a in matching.annotations if not a.get('iscrowd')])
    predictions = by_image_and_class([d for d in matching.detections if d['score'] >= SCORE_THRESHOLD])
    counts: dict[int, Counter[str]] = {category: Counter() for category in matching.category_ids}
    for pair, shapes in instances.items():
        masks = [shape['mask'] for shape in shapes]
        counts[pair[1]].update(verdicts(masks, [p['segmentation'] for p in predictions.get(pair, ())]))
    rates = {}
    for name, category in zip(matching.classes, matching.category_ids, strict=True):
        total = sum(counts[category].values())
        shares = {verdict: counts[category][verdict] / total if total else None for verdict in VERDICTS}
        rates[name] = SegmentationErrors(**shares, instances=total)
    return rates


def verdicts(instances: Sequence[Any], predictions: Sequence[Any]) -> list[str]:
    """One verdict for each instance of a class in an image; both are compressed RLE dicts."""
    if not instances:
        return []
    if not predictions:
        return ['missed'] * len(instances)
    # (P, G) overlaps: over the union, and over the prediction (pycocotools' rule for crowds).
    ious = mask_api.iou(list(predictions), list(instances), [0] * len(instances))
    inside = mask_api.iou(list(predictions), list(instances), [1] * len(instances))
    prediction_areas, instance_areas = (
        # One by one: pycocotools 2.0.11 overflows on a list of 256 masks.
        np.array([mask_api.area(mask) for mask in masks], np.float64)
        for masks in (predictions, instances)
    )
    covered = inside * prediction_areas[:, None] / np.maximum(instance_areas, 1)[None]
    merging = (covered > OVERLAP).sum(1) > 1
    found = []
    for g, instance in enumerate(instances):
        parts = [predictions[p] for p in np.flatnonzero(inside[:, g] > OVERLAP)]
        if ious[:, g].max() > OVERLAP:
            found.append('detected')
        elif len(parts) > 1 and _share_covered(instance, parts) > OVERLAP:
            found.append('over_segmented')
        elif (merging & (covered[:, g] > OVERLAP)).any():
            found.append('under_segmented')
        else:
            found.append('missed')
    return found


def _share_covered(instance: Any, parts: Sequence[Any]) -> float:
    common = mask_api.merge([mask_api.merge(list(parts)), instance], intersect=True)
    return float(mask_api.area(common)) / max(float(mask_api.area(instance)), 1.0)
