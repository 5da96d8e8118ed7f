"""Provenance of a run: config and what it changes, data, machine, software, time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mmengine.config import Config

from armbench_mmdet.configs import differences_from_base
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.result import MISSING, Identity
from armbench_mmdet.report.collect import Run
from armbench_mmdet.report.tables import Table, cells

LONGEST_VALUE = 240
CONFIGS_CHANGE = 'What its bases say now, beside what this run resolved to, command line included.'


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Everything about how a run came about.

    Attributes:
        run: The run.
        facts: Names and values, one line each.
        attempts: Start, end and machine of each attempt, or None without a record.
        differences: What the run has otherwise than the files its config builds on, or None.
        leaf: The config file's own text, or None where it is not there any more.
        resolved: The whole resolved config, or None.
        notes: What is not known, and why.
    """

    run: Run
    facts: list[tuple[str, str]]
    attempts: Table | None
    differences: Table | None
    leaf: str | None
    resolved: str | None
    notes: list[str]


def provenance(run: Run) -> Provenance:
    """Gather it from the record, the results and the configs."""
    notes = [] if run.record else ['There is no record.json: who ran what, when and on which machine is not known.']
    leaf = Path(run.config_path) if run.config_path else None
    differences = None
    if leaf is None:
        notes.append('Neither a record nor a result names the config.')
    elif run.config is not None:
        try:
            differences = _difference_table(run.name, leaf, run.config)
        except InputError as error:
            notes.append(f'No difference to its base can be shown: {error}.')
    if run.config is None:
        notes.append('The resolved config of its training is not there.')
    text = leaf.read_text(errors='replace') if leaf is not None and leaf.is_file() else None
    return Provenance(
        run=run,
        facts=list(_facts(run)),
        attempts=_attempt_table(run),
        differences=differences,
        leaf=text,
        resolved=run.config.pretty_text if run.config is not None else None,
        notes=notes,
    )


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    record: Mapping[str, Any] = run.record or {}
    attempts = record.get('attempts') or [{}]
    identities = [evaluation.result.identity for evaluation in run.evaluations]
    yield 'folder', str(run.work_dir)
    yield 'status', run.status
    yield 'config', run.config_path or MISSING
    seeds = [record.get('seed'), *(identity.seed for identity in identities)]
    yield 'seed', next((str(seed) for seed in seeds if seed is not None), MISSING)
    yield 'trained on', run.trained_on or MISSING
    iterations = run.log.last_step
    yield 'iterations logged', MISSING if iterations is None else str(iterations)
    yield 'time running', _total_time(attempts)
    git = attempts[-1].get('git') or {}
    changed = f' with changes, kept in {git["diff"]} of the folder' if git.get('diff') else ''
    yield 'git revision', f'{git["revision"]}{changed}' if git.get('revision') else MISSING
    yield 'hardware', _hardware(attempts[-1].get('hardware') or {})
    versions: Mapping[str, str] = attempts[-1].get('versions') or next(
        (identity.versions for identity in identities if identity.versions), {}
    )
    yield 'versions', ', '.join(f'{name} {version}' for name, version in versions.items()) or MISSING
    unreadable = [path for attempt in attempts for path in attempt.get('unreadable_images') or ()]
    if unreadable:
        yield 'unreadable images', f'{len(unreadable)}: ' + ', '.join(map(str, unreadable[:10]))
    for name, digest in (record.get('data') or {}).items():
        yield f'data: {name}', str(digest)
    for evaluation, identity in zip(run.evaluations, identities, strict=True):
        yield f'tested: {evaluation.subset} {evaluation.split}', evaluation.fingerprint or MISSING
        yield f'checkpoint for {evaluation.subset} {evaluation.split}', _checkpoint(identity)


def _checkpoint(identity: Identity) -> str:
    digest = identity.extra.get('checkpoint_sha256')
    return (identity.checkpoint or MISSING) + (f', sha256:{digest}' if digest else '')


def _hardware(hardware: Mapping[str, Any]) -> str:
    if not hardware:
        return MISSING
    memory_mb = hardware.get('memory_mb')
    parts = [f'{hardware.get("cpu") or "CPU not known"}, {hardware.get("cores", MISSING)} cores']
    parts += [f'{memory_mb / 1024:.0f} GB memory'] if memory_mb else []
    return ', '.join([*parts, *map(str, hardware.get('gpus') or ['no GPU'])])


def _total_time(attempts: list[Mapping[str, Any]]) -> str:
    times = [_duration(attempt) for attempt in attempts]
    known = [time for time in times if time is not None]
    if not known:
        return MISSING
    missing = len(times) - len(known)
    return _clock(sum(known, timedelta())) + (f', and {missing} attempts whose end is not known' if missing else '')


def _duration(attempt: Mapping[str, Any]) -> timedelta | None:
    try:
        start, end = (datetime.fromisoformat(str(attempt[key]).replace('Z', '+00:00')) for key in ('started', 'ended'))
        return end - start
    except (KeyError, ValueError, TypeError):  # not ended, or written by hand
        return None


def _clock(time: timedelta) -> str:
    minutes, seconds = divmod(round(time.total_seconds()), 60)
    return f'{minutes // 60} h {minutes % 60:02d} min {seconds:02d} s'


def _attempt_table(run: Run) -> Table | None:
    if not run.record or not run.record['attempts']:
        return None
    rows = []
    for number, attempt in enumerate(run.record['attempts'], 1):
        time = _duration(attempt)
        values = [attempt.get(key) for key in ('started', 'status', 'start_iter', 'end_iter', 'world_size', 'command')]
        started, status, *others = [MISSING if value is None else str(value) for value in values]
        end = 'unfinished' if status == 'running' else status
        message = f'{end}: {attempt["message"]}' if attempt.get('message') else end
        rows.append(cells(str(number), started, _clock(time) if time else MISSING, message, *others))
    header = ['attempt', 'started', 'duration', 'end', 'first iteration', 'last iteration', 'processes', 'command']
    return Table(f'Attempts of {run.name}', header, rows, text_columns=len(header))


def _difference_table(name: str, leaf: Path, config: Config) -> Table:
    rows = [
        cells(difference.key, _short(difference.base), _short(difference.run))
        for difference in differences_from_base(leaf, config)
    ]
    return Table(f'{name}: config against its base', ['key', 'base', 'this run'], rows, 3, [CONFIGS_CHANGE])


def _short(value: str) -> str:
    return value if len(value) <= LONGEST_VALUE else value[:LONGEST_VALUE] + ' …'
