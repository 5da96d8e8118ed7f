"""Scores of parts of the data, by object size and density; error rates of instances; speed. See docs/evaluation.md."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as mask_api

from armbench_mmdet.evaluation.matches import MatchTable, match_table
from armbench_mmdet.evaluation.protocol import DENSITY_NAMES, MAX_DETS, SIZES, Matching
from armbench_mmdet.evaluation.result import (
    ClassScores,
    Interval,
    SegmentationErrors,
    Speed,
    StratumScores,
    Times,
    TypeScores,
)
from armbench_mmdet.system import hardware

try:
    import resource
except ImportError:  # not on every system; the peak is then unknown
    resource = None  # type: ignore[assignment]

BYTES_PER_MB = 2**20
SCORE_THRESHOLD = 0.5
OVERLAP = 0.5
VERDICTS = ('detected', 'over_segmented', 'under_segmented', 'missed')


def scores_of_type(matching: Matching, whole: MatchTable, confidence: dict[str, Interval] | None = None) -> TypeScores:
    """Everything the result file holds under one IoU type, with the match table of all sizes."""
    by_size, relative = sized_tables(matching), sized_tables(matching, is_relative=True)
    return TypeScores(
        **summary(whole, by_size),
        per_class={
            name: ClassScores(**summary(whole, by_size, name), instances=int(one.instances.sum()))
            for name, one in whole.classes.items()
        },
        per_size={
            unit: {size: _stratum(one) for size, one in tables.items()}
            for unit, tables in (('coco', by_size), ('relative', relative))
        },
        per_density={name: _stratum(whole.of_images(whole.density == name)) for name in DENSITY_NAMES},
        confidence=confidence,
    )


def sized_tables(matching: Matching, is_relative: bool = False) -> dict[str, MatchTable]:
    """The matches by size of the instance, in px or relative to the image."""
    return {size: match_table(matching, areas, is_relative) for size, areas in SIZES.items()}


def summary(
    whole: MatchTable, by_size: Mapping[str, MatchTable], class_name: str | None = None
) -> dict[str, float | None]:
    """The nine numbers of the result file, under their names there; over all classes unless one is named."""
    return {
        'mAP': whole.ap(class_name=class_name),
        **{f'mAP_{round(100 * iou)}': whole.ap(iou, class_name) for iou in (0.5, 0.75)},
        **{f'mAP_{size}': one.ap(class_name=class_name) for size, one in by_size.items()},
        **{f'AR_{limit}': whole.ar(limit, class_name) for limit in MAX_DETS},
    }


def _stratum(table: MatchTable) -> StratumScores:
    return StratumScores(
        mAP=table.ap(),
        mAP_50=table.ap(0.5),
        mAP_75=table.ap(0.75),
        AR_100=table.ar(),
        per_class={name: table.ap(class_name=name) for name in table.classes},
        instances=int(table.instances.sum()),
        images=np.count_nonzero(table.instances),
    )


def speed_summary(
    predictions: Sequence[Mapping[str, Any]], density: Mapping[int, str], **complexity: Any
) -> Speed | None:
    """The result file's ``speed``, of predictions with ``stages_s``, seconds by stage; None if there are none.

    The density bin of each image is given by its id, and the model's ``parameters`` and ``gflops``.
    """
    timed = [one for one in predictions if 'stages_s' in one]
    if not timed:
        return None
    stages_ms = {name: [1000 * one['stages_s'][name] for one in timed] for name in timed[0]['stages_s']}
    times_ms = np.add(stages_ms['forward'], stages_ms['post-process'])
    bins = np.array([density.get(one['img_id'], '') for one in timed])
    on_gpu = torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if resource else None  # on Linux in this unit
    return Speed(
        **_median_and_p95(times_ms),
        images=len(timed),
        per_density={name: Times(**_median_and_p95(times_ms[bins == name])) for name in DENSITY_NAMES if name in bins},
        stages={name: Times(**_median_and_p95(own)) for name, own in stages_ms.items()},
        **complexity,
        peak_memory_mb=peak_kb and peak_kb / 1024,
        peak_gpu_memory_mb=torch.cuda.max_memory_allocated() / BYTES_PER_MB if on_gpu else None,
        device=torch.cuda.get_device_name() if on_gpu else hardware()['cpu'],
        threads=torch.get_num_threads(),
    )


def _median_and_p95(times_ms: Sequence[float] | np.ndarray) -> dict[str, Any]:
    return {'median_ms': float(np.median(times_ms)), 'p95_ms': float(np.percentile(times_ms, 95))}


def segmentation_errors(matching: Matching) -> dict[str, SegmentationErrors]:
    """The share of each class's instances under each verdict on masks, None without instances, and their number."""
    counted, rates = np.where(matching.crowd, -1, matching.truth.kind), {}
    decided = verdicts(matching)
    for kind, name in enumerate(matching.classes):
        counts = np.bincount(decided[counted == kind], minlength=len(VERDICTS)).tolist()
        shares = [count / sum(counts) if sum(counts) else None for count in counts]
        rates[name] = SegmentationErrors(**dict(zip(VERDICTS, shares, strict=True)), instances=sum(counts))
    return rates


def verdicts(matching: Matching) -> np.ndarray:
    """``(G,) int64``, the verdict on each annotation, crowds not looked at, as its place in ``VERDICTS``."""
    common, sure = matching.common, np.flatnonzero(matching.found.scores >= SCORE_THRESHOLD)
    counts = np.diff(common.own[sure])[:, 0]
    d = np.repeat(sure, counts)
    g = np.arange(len(d)) + np.repeat(common.own[sure, 0] - np.cumsum(counts) + counts, counts)
    d, g = d[~matching.crowd[g]], g[~matching.crowd[g]]
    pair = common.offsets[d] + g
    is_inside = common.shared[pair] > OVERLAP * common.found_sizes[d]
    is_covered = common.shared[pair] > OVERLAP * common.truth_sizes[g]
    is_merging = np.bincount(d[is_covered], minlength=len(common.own)) > 1
    is_detected = np.zeros(len(matching.crowd), bool)
    is_detected[g[common.ious[pair] > 0.5]] = True
    decided = np.where(is_detected, VERDICTS.index('detected'), VERDICTS.index('missed'))
    merged = g[is_covered & is_merging[d]]
    decided[merged[~is_detected[merged]]] = VERDICTS.index('under_segmented')
    inside = np.flatnonzero(is_inside & ~is_detected[g])
    inside = inside[np.argsort(g[inside], kind='stable')]
    for own in np.split(inside, np.flatnonzero(np.diff(g[inside])) + 1):
        if len(own) > 1 and _share_covered(matching, g[own[0]], d[own]) > OVERLAP:
            decided[g[own[0]]] = VERDICTS.index('over_segmented')
    return decided


def _share_covered(matching: Matching, instance: int, parts: np.ndarray) -> float:
    """The share of an annotation that some detections cover together."""
    target = matching.rle(matching.truth, instance)
    whole = mask_api.merge([matching.rle(matching.found, d) for d in parts.tolist()])
    return float(mask_api.area(mask_api.merge([whole, target], intersect=True))) / max(mask_api.area(target), 1)
