"""Scores of parts of the data: by object size and by how full the tote is.

**Size** in two sets of bins. ``coco``: area up to 32², 96² and more pixels, for comparison with other data sets.
``relative``: area up to 1/300, 3/100 and more of the image area; these are COCO's edges divided by the 640×480 pixels
of the images they were chosen for. At 2448×2048 they lie at 129² and 388² pixels.

**Density** by the number of instances in the image, tote included, crowds not: 1–5, 6–10, 11–15, 16–20, 21–30, 31 and
more. Images without any instance are in no bin: they have no ground truth to find.

In a size bin, as in COCO, ground truth outside the bin is ignored, and so are unmatched detections outside it.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from armbench_mmdet.evaluation.protocol import SIZE_EDGES_FRAC, SIZE_EDGES_PX, Accumulated, Matching

DENSITY_STARTS = (1, 6, 11, 16, 21, 31)
DENSITY_NAMES = ('1-5', '6-10', '11-15', '16-20', '21-30', '31+')


def density_name(instances: int) -> str | None:
    """The name of the bin that an image with so many instances falls into, None for an empty image."""
    return DENSITY_NAMES[bisect.bisect(DENSITY_STARTS, instances) - 1] if instances else None


def density_of_images(ground_truth: Mapping[str, Any]) -> dict[int, str | None]:
    """The density bin of every image by its id."""
    counts = Counter(a['image_id'] for a in ground_truth['annotations'] if not a.get('iscrowd'))
    return {image['id']: density_name(counts[image['id']]) for image in ground_truth['images']}


def scores_of_type(matching: Matching) -> dict[str, Any]:
    """Everything the result file holds under one IoU type."""
    overall = matching.accumulate()
    counted = [a for a in matching.annotations if not a.get('iscrowd')]
    per_class_id = Counter(annotation['category_id'] for annotation in counted)
    names = zip(matching.classes, matching.category_ids, strict=True)
    return {
        **overall.summary(),
        'per_class': {name: {**overall.summary(name), 'instances': per_class_id[i]} for name, i in names},
        'per_size': {
            'coco': _sizes(overall, counted, dict.fromkeys(matching.images, 1.0), SIZE_EDGES_PX),
            'relative': _sizes(
                matching.accumulate(relative_areas=True),
                counted,
                {i: float(image['height'] * image['width']) for i, image in matching.images.items()},
                SIZE_EDGES_FRAC,
            ),
        },
        'per_density': _densities(matching, counted),
    }


def _sizes(
    accumulated: Accumulated, counted: list[dict[str, Any]], unit_px: Mapping[int, float], edges: tuple[float, float]
) -> dict[str, dict[str, Any]]:
    # Both edges belong to both neighbours, as in COCO's own ranges.
    ranges = {'s': (0.0, edges[0]), 'm': (edges[0], edges[1]), 'l': (edges[1], float('inf'))}
    bins = {}
    for name, (low, high) in ranges.items():
        inside = [a for a in counted if low <= a['area'] / unit_px[a['image_id']] <= high]
        bins[name] = _stratum(accumulated, inside, {a['image_id'] for a in inside}, area=name)
    return bins


def _densities(matching: Matching, counted: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    bin_of = density_of_images({'images': matching.images.values(), 'annotations': counted})
    scores = {}
    for name in DENSITY_NAMES:
        image_ids = {i for i, own in bin_of.items() if own == name}
        inside = [a for a in counted if a['image_id'] in image_ids]
        scores[name] = _stratum(matching.accumulate(image_ids) if image_ids else None, inside, image_ids)
    return scores


def _stratum(
    accumulated: Accumulated | None, inside: list[dict[str, Any]], image_ids: Iterable[int], area: str = 'all'
) -> dict[str, Any]:
    scores: dict[str, Any] = {'mAP': None, 'mAP_50': None, 'mAP_75': None, 'AR_100': None, 'per_class': {}}
    if accumulated is not None:
        scores = {
            'mAP': accumulated.ap(area=area),
            'mAP_50': accumulated.ap(0.5, area=area),
            'mAP_75': accumulated.ap(0.75, area=area),
            'AR_100': accumulated.ar(area=area),
            'per_class': {name: accumulated.ap(area=area, class_name=name) for name in accumulated.classes},
        }
    return {**scores, 'instances': len(inside), 'images': len(set(image_ids))}
