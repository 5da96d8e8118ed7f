"""Provenance of a run: config and what it changes, data, machine, software, time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from mmengine.config import Config

from armbench_mmdet.configs import differences_from_base
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.result import MISSING
from armbench_mmdet.report.collect import Run, ending
from armbench_mmdet.report.tables import Table, cells
from armbench_mmdet.run_folder import RECORD, Attempt

LONGEST_VALUE = 240
CONFIGS_CHANGE = 'What its bases say now, beside what this run resolved to, command line included.'


@dataclasses.dataclass(frozen=True)
class Provenance:
    """How a run came about: facts, config against base, the config's own text and resolved; what is not known."""

    run: Run
    facts: list[tuple[str, str]]
    attempts: Table | None
    differences: Table | None
    leaf: str | None
    resolved: str | None
    notes: list[str]


def provenance(run: Run) -> Provenance:
    """Gather it from the record, the results and the configs."""
    notes = [] if run.record else [f'There is no {RECORD}: who ran what, when and on which machine is not known.']
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
    record = run.record
    attempts = record.attempts if record else []
    last = attempts[-1] if attempts else Attempt(started='')
    identities = [evaluation.result.identity for evaluation in run.evaluations]
    seeds = [record.seed if record else None, *(identity.seed for identity in identities)]
    versions = [last.versions, *(identity.versions for identity in identities), {}]
    software = next((one for one in versions if one), {})
    yield 'folder', str(run.work_dir)
    yield 'status', run.status
    yield 'config', run.config_path or MISSING
    yield 'seed', next((str(seed) for seed in seeds if seed is not None), MISSING)
    yield 'trained on', run.trained_on or MISSING
    yield 'iterations logged', MISSING if run.log.last_step is None else str(run.log.last_step)
    changed = f' with changes, kept in {last.git.diff} of the folder' if last.git.diff else ''
    yield 'git revision', f'{last.git.revision}{changed}' if last.git.revision else MISSING
    yield 'hardware', ', '.join(f'{name} {value}' for name, value in last.hardware.items() if value) or MISSING
    yield 'versions', ', '.join(f'{name} {version}' for name, version in software.items()) or MISSING
    unreadable = [path for attempt in attempts for path in attempt.unreadable_images]
    if unreadable:
        yield 'unreadable images', f'{len(unreadable)}: ' + ', '.join(unreadable[:10])
    for name, digest in record.data.items() if record else ():
        yield f'data: {name}', digest
    for evaluation, identity in zip(run.evaluations, identities, strict=True):
        sha256 = identity.extra.get('checkpoint_sha256')
        yield f'tested: {evaluation.subset} {evaluation.split}', evaluation.fingerprint or MISSING
        checkpoint = (identity.checkpoint or MISSING) + (f', sha256:{sha256}' if sha256 else '')
        yield f'checkpoint for {evaluation.subset} {evaluation.split}', checkpoint


def _duration(attempt: Attempt) -> timedelta | None:
    try:
        start, end = (
            datetime.fromisoformat(str(one).replace('Z', '+00:00')) for one in (attempt.started, attempt.ended)
        )
        return end - start
    except (ValueError, TypeError):  # not ended, or written by hand
        return None


def _clock(time: timedelta | None) -> str:
    if time is None:
        return MISSING
    minutes, seconds = divmod(round(time.total_seconds()), 60)
    return f'{minutes // 60} h {minutes % 60:02d} min {seconds:02d} s'


def _attempt_table(run: Run) -> Table | None:
    if not run.record or not run.record.attempts:
        return None
    rows = []
    for number, one in enumerate(run.record.attempts, 1):
        about = [one.start_iter, MISSING if one.end_iter is None else one.end_iter, one.world_size, one.command]
        rows.append(cells(str(number), one.started, _clock(_duration(one)), ending(one), *map(str, about)))
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
