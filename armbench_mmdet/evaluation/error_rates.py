"""What a picking robot suffers from: one object predicted as several, several as one.

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

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from armbench_mmdet.evaluation.protocol import Matching, by_image_and_class
from armbench_mmdet.evaluation.result import SegmentationErrors

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
