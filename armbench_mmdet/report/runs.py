"""Runs as a report sees them: what lies in their work directories, and what is wrong with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from mmengine.config import Config

from armbench_mmdet.datasets.minibench.writer import MARKER
from armbench_mmdet.errors import InputError
from armbench_mmdet.launch.config import datasets, training_subsets
from armbench_mmdet.report.dumped_config import dumped_config
from armbench_mmdet.report.evaluations import Evaluation, read_evaluations
from armbench_mmdet.report.logs import Log, read_log

RECORD_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Run:
    """One work directory.

    Attributes:
        name: Short and unique in the report.
        work_dir: The folder.
        record: ``record.json``, or None.
        config: The resolved config it was trained with, or None.
        log: Its curves.
        evaluations: Its result files, in the order of the subsets.
        problems: What is wrong, a line each.
    """

    name: str
    work_dir: Path
    record: dict[str, Any] | None
    config: Config | None
    log: Log
    evaluations: tuple[Evaluation, ...]
    problems: tuple[str, ...]

    @property
    def config_path(self) -> str | None:
        """The config file as the record or a result names it."""
        if self.record and self.record.get('config'):
            return self.record['config']
        return next((e.result['identity']['config'] for e in self.evaluations if e.result['identity']['config']), None)

    @property
    def status(self) -> str:
        """Whether it ended well."""
        if self.record is None:
            return 'unknown: no record.json'
        status, message = self.record['status'], self.record.get('message')
        if status == 'running':  # nobody is there to correct the record of a process that was killed
            return 'unfinished'
        return f'{status}: {message}' if message else status

    @property
    def trained_on(self) -> str | None:
        """The subsets it was trained on, or None where that is not known."""
        return None if self.config is None else training_subsets(self.config)

    @property
    def is_procedural(self) -> bool:
        """Whether any of its data is minibench's."""
        loaders = [] if self.config is None else list(datasets(self.config))
        ann_files = [evaluation.result['identity']['extra'].get('ann_file') for evaluation in self.evaluations]
        roots = [Path(ann_file).parents[1] for ann_file in ann_files if ann_file]
        roots += [Path(one['data_root']) for one in loaders if one.get('data_root')]
        return (
            any(one.get('type') == 'MinibenchDataset' for one in loaders)
            or any((root / MARKER).is_file() for root in roots)
            or 'minibench' in (self.config_path or '')
        )


def collect_runs(work_dirs: Sequence[str | Path]) -> tuple[list[Run], list[str]]:
    """Read the work directories.

    Args:
        work_dirs: Folders of runs.

    Returns:
        The runs in which there is something to report, and a line for everything that is wrong or unfinished.

    Raises:
        InputError: There is nothing to report in any of them.
    """
    runs: list[Run] = []
    problems: list[str] = []
    folders = list(dict.fromkeys(Path(work_dir) for work_dir in work_dirs))
    for folder, name in zip(folders, _names(folders), strict=True):
        if not folder.is_dir():
            problems.append(f'work dir must be an existing folder, got {str(folder)!r}')
            continue
        run = _read_run(folder, name)
        problems += [f'{name}: {problem}' for problem in run.problems]
        if run.record or run.evaluations or run.log.train or run.log.validation:
            runs.append(run)
        else:
            problems.append(f'work dir must hold a run (record.json, logs or results), got {str(folder)!r}')
    if not runs:
        raise InputError('; '.join(problems) or 'work dirs must be given, got none')
    return runs, problems


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, with as many of their parents as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(set(parts)):
        depth += 1
    return ['/'.join(part[-depth:]) for part in parts]


def _read_run(folder: Path, name: str) -> Run:
    record, problems = _read_record(folder / 'record.json')
    log, log_problems = read_log(folder)
    evaluations, result_problems = read_evaluations(folder / 'results')
    stem = Path(record['config']).stem if record else next(iter(_config_stems(evaluations)), None)
    config, config_problems = dumped_config(folder, stem)
    problems = problems + log_problems + result_problems + config_problems
    run = Run(name, folder, record, config, log, evaluations, ())
    if record and record['status'] != 'finished':
        at = f' at iteration {log.last_step}' if log.last_step is not None else ''
        problems.append(f'the run did not finish{at}; its record says {run.status!r}')
    if not log.train and not log.validation:
        problems.append(f'no log with curves (looked for */vis_data/scalars.json in {folder})')
    if not evaluations:
        problems.append(f'no result to show (in {folder / "results"}); evaluate it with tools/test.py')
    return dataclasses.replace(run, problems=tuple(problems))


def _config_stems(evaluations: Sequence[Evaluation]) -> list[str]:
    return [Path(e.result['identity']['config']).stem for e in evaluations if e.result['identity']['config']]


def _read_record(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    if not path.is_file():
        return None, []
    try:
        record = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        return None, [f'record must be JSON: {error} (in {path})']
    if record.get('schema_version') != RECORD_VERSION:
        return None, [f'schema_version must be {RECORD_VERSION}, got {record.get("schema_version")!r} (in {path})']
    kinds = {'config': str, 'status': str, 'attempts': list}
    wrong = [key for key, kind in kinds.items() if not isinstance(record.get(key), kind)]
    if wrong:
        got = {key: record.get(key) for key in wrong}
        return None, [f'record must have {", ".join(wrong)} as tools/train.py writes them, got {got} (in {path})']
    return record, []
