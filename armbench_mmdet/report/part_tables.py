"""The tables of parts and of behaviour: sizes, densities, speed, objects split and merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from armbench_mmdet.datasets.categories import CLASSES
from armbench_mmdet.evaluation.error_rates import VERDICTS
from armbench_mmdet.evaluation.result_file import shown
from armbench_mmdet.evaluation.strata import DENSITY_NAMES
from armbench_mmdet.report.comparisons import Comparison, Entry
from armbench_mmdet.report.table import Cell, Table, cells

SIZE_NAMES = {'s': 'small', 'm': 'medium', 'l': 'large'}
SIZE_UNITS = {'relative': 'relative to the image', 'coco': 'in pixels'}
VERDICT_NAMES = {verdict: verdict.replace('_', '-') for verdict in VERDICTS}
_STRATUM = ['mAP', *(f'{name} mAP' for name in CLASSES), 'mAP_50', 'mAP_75', 'AR_100', 'instances', 'images']


def with_masks(comparison: Comparison) -> list[Entry]:
    """The entries that have scores of masks."""
    return [entry for entry in comparison.entries if entry.evaluation.result['segm']]


def size_table(comparison: Comparison) -> Table:
    """Mask scores by size of the instance, in bins of the image area and of pixels."""
    rows = [
        [*cells(f'{SIZE_NAMES[size]} ({SIZE_UNITS[unit]})', entry.label), *_stratum(strata[unit][size])]
        for unit in SIZE_UNITS
        for size in SIZE_NAMES
        for entry in with_masks(comparison)
        for strata in [entry.evaluation.result['segm']['per_size']]
    ]
    return Table(f'{comparison.title}: masks by size', ['size', 'run', *_STRATUM], rows, 2)


def density_table(comparison: Comparison) -> Table:
    """Mask scores by the number of instances in the image."""
    filled = filled_densities(comparison)
    rows = [
        [*cells(name, entry.label), *_stratum(entry.evaluation.result['segm']['per_density'][name])]
        for name in filled
        for entry in with_masks(comparison)
    ]
    empty = ', '.join(name for name in DENSITY_NAMES if name not in filled)
    return Table(
        caption=f'{comparison.title}: masks by density',
        header=['instances per image', 'run', *_STRATUM],
        rows=rows,
        text_columns=2,
        notes=[f'No image has {empty} instances.'] if empty else [],
    )


def filled_densities(comparison: Comparison) -> list[str]:
    """The density bins with images in them."""
    per_density = [entry.evaluation.result['segm']['per_density'] for entry in with_masks(comparison)]
    return [name for name in DENSITY_NAMES if any(strata[name]['images'] for strata in per_density)]


def _stratum(scores: Mapping[str, Any]) -> list[Cell]:
    by_class = [scores['per_class'].get(name) for name in CLASSES]
    numbers = [scores['mAP'], *by_class, scores['mAP_50'], scores['mAP_75'], scores['AR_100']]
    return cells(*map(shown, numbers), str(scores['instances']), str(scores['images']))


def speed_table(comparison: Comparison) -> Table:
    """Milliseconds per image, median and 95th percentile, overall and by density, and the peak of memory."""
    rows = []
    for entry in comparison.entries:
        speed = entry.evaluation.result['speed']
        if speed is not None:
            times = [_times(speed), *(_times(speed['per_density'].get(name, {})) for name in DENSITY_NAMES)]
            memory = [shown(speed[key], 0) for key in ('peak_memory_mb', 'peak_gpu_memory_mb')]
            rows.append(cells(entry.label, speed['device'], str(speed['images']), *times, *memory))
    header = ['run', 'device', 'images', 'all', *DENSITY_NAMES, 'peak memory, MB', 'peak GPU memory, MB']
    return Table(
        caption=f'{comparison.title}: ms per image, median / 95th percentile, by instances per image',
        header=header,
        rows=rows,
        text_columns=2,
        notes=[
            'From the loaded batch to finished masks; reading the image is not in it. '
            'Only times on the same, otherwise idle machine compare.',
            *_without(comparison, 'speed', 'no times in its result file'),
        ],
    )


def _times(speed: Mapping[str, Any]) -> str:
    return f'{shown(speed.get("median_ms"), 0)} / {shown(speed.get("p95_ms"), 0)}'


def error_table(comparison: Comparison) -> Table:
    """The share of instances found, split, merged and missed."""
    rows = []
    for name in CLASSES:
        for entry in comparison.entries:
            errors = (entry.evaluation.result['segmentation_errors'] or {}).get(name)
            if errors is not None:
                shares = [shown(errors[verdict]) for verdict in VERDICTS]
                rows.append(cells(name, entry.label, *shares, str(errors['instances'])))
    return Table(
        caption=f'{comparison.title}: shares of instances',
        header=['class', 'run', *VERDICT_NAMES.values(), 'instances'],
        rows=rows,
        text_columns=2,
        notes=[
            'Predictions with a score of 0.5 or more. Over-segmented: several predictions on one instance; '
            'under-segmented: one prediction over several instances.',
            *_without(comparison, 'segmentation_errors', 'no such shares in its result file'),
        ],
    )


def _without(comparison: Comparison, key: str, what: str) -> Sequence[str]:
    return [f'{e.label}: {what}.' for e in comparison.entries if e.evaluation.result[key] is None]
