"""The result file and its table."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from armbench_mmdet.errors import InputError
from armbench_mmdet.files import sha256_of

SCHEMA_VERSION = 1
MISSING = '–'
Number = float | None


class Scores(msgspec.Struct, kw_only=True):
    """COCO's numbers under one IoU type: average precision and average recall, 0 to 1."""

    ap: Number = msgspec.field(name='mAP')
    ap_50: Number = msgspec.field(name='mAP_50')
    ap_75: Number = msgspec.field(name='mAP_75')
    ap_small: Number = msgspec.field(name='mAP_s')
    ap_medium: Number = msgspec.field(name='mAP_m')
    ap_large: Number = msgspec.field(name='mAP_l')
    ar_1: Number = msgspec.field(name='AR_1')
    ar_10: Number = msgspec.field(name='AR_10')
    ar_100: Number = msgspec.field(name='AR_100')


class ClassScores(Scores, kw_only=True):
    """One class; ``instances`` counts its ground truth without crowds."""

    instances: int


class StratumScores(msgspec.Struct, kw_only=True):
    """A part of the data: a size bin or a density bin.

    ``per_class`` holds the mAP of each class. ``instances`` counts ground truth without crowds, ``images`` the images
    in the bin (for sizes: those with at least one such instance).
    """

    ap: Number = msgspec.field(name='mAP')
    ap_50: Number = msgspec.field(name='mAP_50')
    ap_75: Number = msgspec.field(name='mAP_75')
    ar_100: Number = msgspec.field(name='AR_100')
    per_class: dict[str, Number]
    instances: int
    images: int


class TypeScores(Scores, kw_only=True):
    """Everything under one IoU type; ``confidence`` has an interval for each class and for their ``mean``."""

    per_class: dict[str, ClassScores]
    per_size: dict[str, dict[str, StratumScores]]
    per_density: dict[str, StratumScores]
    confidence: dict[str, Interval] | None = None


class Speed(msgspec.Struct, kw_only=True):
    """Time from the loaded batch to finished predictions, per image, and the process's peak memory."""

    images: int
    median_ms: Number
    p95_ms: Number
    per_density: dict[str, dict[str, Number]]
    peak_memory_mb: Number
    peak_gpu_memory_mb: Number
    device: str


class SegmentationErrors(msgspec.Struct, kw_only=True):
    """Shares of one class's instances, adding up to 1; defined in :mod:`armbench_mmdet.evaluation.error_rates`."""

    detected: Number
    over_segmented: Number
    under_segmented: Number
    missed: Number
    instances: int


class Interval(msgspec.Struct, kw_only=True):
    """The 95 % bootstrap interval of an mAP over images; see :mod:`armbench_mmdet.evaluation.bootstrap`."""

    low: Number
    high: Number


class Images(msgspec.Struct, kw_only=True):
    """How many images there were, how many the metric never saw, and how many it saw twice (counted once).

    ``unreadable`` lists the files that could not be read; they count as images without detections.
    """

    ground_truth: int
    not_seen: int
    repeated: int
    unreadable: list[str] = []


class Identity(msgspec.Struct, kw_only=True):
    """What was evaluated on what; anything more goes to ``extra``.

    The metric puts there where the data lie: ``ann_file`` and ``image_folder``, absolute, and ``category_map`` if the
    data set has one.
    """

    subset: str | None
    split: str | None
    config: str | None = None
    checkpoint: str | None = None
    seed: int | None = None
    data_fingerprint: str | None = None
    versions: dict[str, str] = {}
    extra: dict[str, Any] = {}


class ResultFile(msgspec.Struct, kw_only=True):
    """The whole file."""

    schema_version: int
    identity: Identity
    classes: list[str]
    images: Images
    detections: int
    bbox: TypeScores | None = None
    segm: TypeScores | None = None
    boundary: TypeScores | None = None
    segmentation_errors: dict[str, SegmentationErrors] | None = None
    speed: Speed | None = None


SCHEMA: dict[str, Any] = msgspec.json.schema(ResultFile)
"""The JSON schema of the file, derived from the types above."""


def file_fingerprint(path: str | Path) -> str | None:
    """``sha256:`` and the digest of a file's content, or None if there is no such file."""
    return f'sha256:{sha256_of(Path(path))}' if Path(path).is_file() else None


def matches_path(result_file: str | Path, iou_type: str) -> Path:
    """Where the match table of an IoU type lies: beside the result file."""
    return Path(result_file).with_suffix(f'.{iou_type}.matches.npz')


def checked_result(result: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The result in its canonical form, every field present.

    Args:
        result: A result in the file's shape; its NaN become null.
        source: What to name in the message, usually a path.

    Raises:
        InputError: A field is missing, misspelt or of the wrong type.
    """
    clean = without_nan(result)
    version = clean.get('schema_version') if isinstance(clean, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(
            f'schema_version must be {SCHEMA_VERSION}, got {version!r} (in {source}); evaluate again with tools/test.py'
        )
    try:
        return msgspec.to_builtins(msgspec.convert(clean, ResultFile))
    except msgspec.ValidationError as error:
        raise InputError(
            f'a result must follow its schema: {error} (in {source}); evaluate again with tools/test.py'
        ) from error


def write_result(path: str | Path, result: Mapping[str, Any]) -> Path:
    """Validate and write a result file; readers see the old file or the new one, never half of it.

    Raises:
        InputError: The result does not follow the schema.
    """
    path = Path(path)
    content = msgspec.json.format(msgspec.json.encode(checked_result(result, str(path))), indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f'.{path.name}.{os.getpid()}')
    draft.write_bytes(content + b'\n')
    draft.replace(path)
    return path


def read_result(path: str | Path) -> dict[str, Any]:
    """Read and validate a result file.

    Raises:
        InputError: The file is missing, is no JSON, or does not follow the schema.
    """
    path = Path(path)
    try:
        content = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise InputError(f'result file must be readable, got {error.strerror!r} (in {path})') from error
    except msgspec.DecodeError as error:
        raise InputError(f'result file must be JSON: {error} (in {path}); evaluate again with tools/test.py') from error
    return checked_result(content, str(path))


def without_nan(value: Any) -> Any:
    """A copy with NaN and infinities as None; tuples become lists."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def shown(value: float | None, digits: int = 3) -> str:
    """A number for a table: ``0.617``, or ``–`` where there is none."""
    return MISSING if value is None else f'{value:.{digits}f}'


COLUMNS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR_1', 'AR_10', 'AR_100')


def result_table(result: Mapping[str, Any]) -> str:
    """One row for the mean and one for each class, under each IoU type."""
    rows: list[Sequence[str]] = [('', 'class', *COLUMNS, 'instances')]
    for iou_type in ('segm', 'boundary', 'bbox'):
        scores = result.get(iou_type)
        if scores is None:
            continue
        total = sum(one['instances'] for one in scores['per_class'].values())
        rows.append((iou_type, 'mean', *(shown(scores[column]) for column in COLUMNS), str(total)))
        for name, one in scores['per_class'].items():
            rows.append(('', name, *(shown(one[column]) for column in COLUMNS), str(one['instances'])))
    identity = result['identity']
    title = ' '.join(str(part) for part in (identity.get('subset'), identity.get('split')) if part)
    images = result['images']
    about = f'{images["ground_truth"]} images, {result["detections"]} detections'
    if images['not_seen']:
        about += f', {images["not_seen"]} images NOT predicted'
    return '\n'.join([f'{title}: {about}' if title else about, aligned(rows)])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Cells padded to columns; the first two columns to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append('  '.join(cells).rstrip())
    return '\n'.join(lines)
