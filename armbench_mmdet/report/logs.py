"""A run's curves from mmengine's logs, over every attempt of a run that was resumed."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]

VALIDATION_PREFIXES = ('coco/', 'val_loss/')


@dataclasses.dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        steps: Training iterations, rising.
        values: As many; None where the run logged NaN or infinity.
    """

    steps: list[float]
    values: list[float | None]


@dataclasses.dataclass(frozen=True)
class Log:
    """What a run logged, by step; every row has its ``step`` in training iterations."""

    train: list[Row] = dataclasses.field(default_factory=list)
    validation: list[Row] = dataclasses.field(default_factory=list)

    @property
    def last_step(self) -> int | None:
        """The last training iteration that was logged."""
        return self.train[-1]['step'] if self.train else None

    def losses(self) -> list[str]:
        """The names of the loss components, the total first."""
        names = {key for row in self.train for key in row if 'loss' in key}
        names |= {
            key.removeprefix('val_loss/') for row in self.validation for key in row if key.startswith('val_loss/')
        }
        return sorted(names, key=lambda name: (name != 'loss', '.' in name, name))

    def training(self, key: str) -> Series:
        """A value of the training rows."""
        return _series(self.train, key)

    def validated(self, key: str) -> Series:
        """A value of the validation rows."""
        return _series(self.validation, key)


def read_log(work_dir: Path) -> tuple[Log, list[str]]:
    """Read the logs of every attempt; where two logged the same steps, the later one counts.

    An attempt counts from its first step on: what an earlier one logged there or after was undone by resuming from a
    checkpoint before it, or by starting afresh. Schedules by epoch log validation by epoch; it is placed at the last
    training iteration logged in that epoch.

    Args:
        work_dir: The run's folder, with ``<timestamp>/vis_data/scalars.json`` in it.

    Returns:
        The log, and what is wrong with it, a line each.
    """
    train: list[Row] = []
    validation: list[Row] = []
    problems: list[str] = []
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        rows = list(_rows(path, problems))
        new_train = [row for row in rows if not _is_validation(row) and 'loss' in row]
        new_validation = _in_iterations([row for row in rows if _is_validation(row)], train, new_train)
        if not new_train and not new_validation:
            continue
        start = min(row['step'] for row in new_train or new_validation)
        train = [row for row in train if row['step'] < start] + new_train
        validation = [row for row in validation if row['step'] < start] + new_validation
    return Log(_by_step(train), _by_step(validation)), problems


def _rows(path: Path, problems: list[str]) -> Iterator[Row]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        problems.append(f'log must be readable, got {error.strerror!r} (in {path})')
        return
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get('step'), int):
            where = 'it is cut short there' if number == len(lines) else f'{len(lines) - number} lines follow'
            problems.append(
                f'log lines must be JSON with a step, got {line[:40]!r} in line {number}, {where} (in {path})'
            )
            continue
        yield row


def _is_validation(row: Row) -> bool:
    return any(key.startswith(VALIDATION_PREFIXES) for key in row)


def _in_iterations(validation: list[Row], *train: list[Row]) -> list[Row]:
    """The validation rows with their epochs turned into iterations, where training rows count epochs."""
    last = {row['epoch']: row['step'] for rows in train for row in rows if 'epoch' in row}
    return [{**row, 'step': last.get(row['step'], row['step'])} for row in validation] if last else validation


def _by_step(rows: list[Row]) -> list[Row]:
    merged: dict[int, Row] = {}
    for row in rows:
        merged[row['step']] = {**merged.get(row['step'], {}), **row}
    return [merged[step] for step in sorted(merged)]


def _series(rows: list[Row], key: str) -> Series:
    found = [(row['step'], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    values = [float(value) if math.isfinite(value) else None for _, value in found]
    return Series([step for step, _ in found], values)
