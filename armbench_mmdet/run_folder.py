"""A run's folder: its files, its record and the names of its metrics, for those who write them and those who read."""

from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from armbench_mmdet.files import read_json, write_json

RECORD = 'record.json'
LATEST = 'last_checkpoint'  # names the latest checkpoint, as in mmengine
INTERRUPTED = 'interrupted.pth'  # of a run that was asked to stop; it goes when the resumed run has written its next
RESULTS, CORRUPTIONS = 'results', 'corruptions'  # folders of result files, and of what was measured on corrupted photos
SCALARS = '*/vis_data/scalars.json'  # logs with the curves: one for each start, a JSON object a line

METRIC_PREFIX = 'coco/'
VALIDATION_LOSS_PREFIX = 'val_loss/'
VALIDATION_PREFIXES = (METRIC_PREFIX, VALIDATION_LOSS_PREFIX)  # of a row of a log that is of a validation
MAIN_METRIC = 'coco/segm_mAP'

Status = Literal['running', 'finished', 'stopped', 'failed']  # running is also the last word of who was killed
Reason = Literal['nan', 'out of memory', 'data', 'input', 'lost process', 'crash']
"""Why a run failed: a loss not finite, memory, unreadable images, other bad input, a process that died, all else."""


class Ending(msgspec.Struct, frozen=True):
    """How an attempt ended: ``reason`` for a failed one, ``iterations`` finished by then."""

    status: Status
    message: str | None = None
    reason: Reason | None = None
    iterations: int | None = None


class Git(msgspec.Struct):
    """The revision of the code, and the file with what was changed since."""

    revision: str | None = None
    diff: str | None = None


class Attempt(msgspec.Struct, kw_only=True):
    """One start of a run, from a process's beginning to its end; times are ISO 8601 in UTC."""

    started: str
    ended: str | None = None
    status: Status = 'running'
    message: str | None = None
    reason: Reason | None = None
    command: str = ''
    resumed_from: str | None = None
    start_iter: int = 0
    end_iter: int | None = None
    world_size: int = 1
    git: Git = msgspec.field(default_factory=Git)
    versions: dict[str, str] = {}
    hardware: dict[str, Any] = {}
    unreadable_images: list[str] = []


class RunRecord(msgspec.Struct, kw_only=True):
    """``record.json``: what a stranger needs to repeat a run, ``data`` by their digests, and what became of it."""

    schema_version: Literal[1] = 1
    config: str
    seed: int | None = None
    status: Status
    message: str | None = None
    reason: Reason | None = None
    data: dict[str, str] = {}
    attempts: list[Attempt]

    def end(self, ending: Ending, ended: str, unreadable_images: list[str]) -> None:
        """Write down how the last attempt ended."""
        last = self.attempts[-1]
        for one in (self, last):
            one.status, one.message, one.reason = ending.status, ending.message, ending.reason
        last.ended, last.end_iter, last.unreadable_images = ended, ending.iterations, unreadable_images


def read_record(work_dir: Path) -> RunRecord | None:
    """The record of a run, None if it has none.

    Raises:
        InputError: It cannot be read, or is of another version.
    """
    path = work_dir / RECORD
    return read_json(path, RunRecord, 'record must be JSON as tools/train.py writes it') if path.exists() else None


def write_record(work_dir: Path, record: RunRecord) -> None:
    """Write the record of a run; where that raises an ``OSError``, the earlier one is as it was."""
    write_json(work_dir / RECORD, record)


class Corruptions(msgspec.Struct, kw_only=True):
    """``<subset>_<split>.json`` in a run's folder ``corruptions``: mask mAP of each class, and ``mean``.

    They are of the photos as they are, and under each corruption, from severity 1 to 5.
    """

    schema_version: Literal[1] = 1
    config: str
    checkpoint_sha256: str
    subset: str
    split: str
    clean: dict[str, float | None]
    corrupted: dict[str, list[dict[str, float | None]]]

    def performance(self, name: str) -> tuple[float, float]:
        """Mean performance under corruption of a class or ``mean``, and its share of the clean one.

        Source: Michaelis et al., arXiv 1907.07484, mPC and rPC.
        """
        mean = float(np.mean([score.get(name) or 0 for scores in self.corrupted.values() for score in scores]))
        return mean, mean / (self.clean[name] or np.nan)


def read_corruptions(path: Path) -> Corruptions:
    """Read what ``tools/test.py --corruptions`` wrote.

    Raises:
        InputError: It is another file.
    """
    return read_json(path, Corruptions, 'corruptions must be JSON as tools/test.py --corruptions writes them')
