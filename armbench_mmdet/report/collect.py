"""Runs, their logs and their results, collected from folders."""

import dataclasses
import json
import math
import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from armbench_mmdet import run_folder
from armbench_mmdet.configs import datasets, dumped_config, training_subsets
from armbench_mmdet.datasets.armbench import is_procedural
from armbench_mmdet.datasets.release import SUBSETS
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import MatchTable
from armbench_mmdet.evaluation.protocol import IOU_TYPES
from armbench_mmdet.evaluation.result import FLAGS, MISSING, PREDICTIONS, Result, TypeScores, matches_path, read_result
from armbench_mmdet.files import sha256_of
from armbench_mmdet.transforms.corruption import CORRUPTIONS, SEVERITIES

AGAIN = 'evaluate again with tools/test.py'
CORRUPT_AGAIN = 'go on with tools/test.py --corruptions'

Row = dict[str, Any]
Curve = tuple[list[float], list[float | None]]
"""Rising training iterations, and the values there, None where the run logged NaN or infinity."""


@dataclasses.dataclass(frozen=True)
class Log:
    """What a run logged, by step; every row has its ``step`` in training iterations."""

    train: list[Row]
    validation: list[Row]

    @property
    def last_step(self) -> int | None:
        """The last training iteration that was logged."""
        return self.train[-1]['step'] if self.train else None

    def losses(self) -> list[str]:
        """The names of the loss components, the total first."""
        keys = {key for row in (*self.train, *self.validation) for key in row if 'loss' in key}
        names = {key.removeprefix(run_folder.VALIDATION_LOSS_PREFIX) for key in keys}
        return sorted(names, key=lambda name: (name != 'loss', '.' in name, name))

    def curve(self, key: str) -> Curve:
        """A value of the training rows, or by its prefix one of the validation rows."""
        rows = self.validation if key.startswith(run_folder.VALIDATION_PREFIXES) else self.train
        found = [row for row in rows if isinstance(row.get(key), int | float)]
        return [row['step'] for row in found], [row[key] if math.isfinite(row[key]) else None for row in found]


def read_log(work_dir: Path) -> tuple[Log, list[str]]:
    """Read the logs of every attempt; with the log comes what is wrong with it, a line each.

    An attempt counts from its first step on: what an earlier one logged there or after was undone by resuming from a
    checkpoint before it, or by starting afresh. Schedules by epoch log validation by epoch; it is placed at the last
    training iteration logged in that epoch.
    """
    train: dict[int, Row] = {}
    validation: dict[int, Row] = {}
    epochs: dict[int, int] = {}
    problems: list[str] = []
    for path in sorted(work_dir.glob(run_folder.SCALARS)):
        is_new = True
        for number, text in enumerate(path.read_bytes().splitlines(), 1):
            try:
                row = json.loads(text)
                step = row['step']
            except (ValueError, TypeError, KeyError):
                problems.append(f'log lines must be JSON with a step, got {text[:40]!r} in line {number} (in {path})')
                continue
            if is_new:
                train, validation = ({k: row for k, row in rows.items() if k < step} for rows in (train, validation))
                is_new = False
            if any(key.startswith(run_folder.VALIDATION_PREFIXES) for key in row):
                step = epochs.get(step, step)
                validation[step] = {**row, 'step': step}
            elif 'loss' in row:
                epochs |= {row['epoch']: step} if 'epoch' in row else {}
                train[step] = row
    return Log(*([rows[step] for step in sorted(rows)] for rows in (train, validation))), problems


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A result file, and the match tables beside it by IoU type.

    Attributes:
        is_of_run: Whether it was measured on a checkpoint that the run's folder has, as far as one can tell.
    """

    path: Path
    subset: str
    split: str
    result: Result
    tables: dict[str, MatchTable]
    is_of_run: bool = True

    @property
    def fingerprint(self) -> str | None:
        """The digest of the annotation file."""
        return self.result.identity.data_fingerprint


def read_evaluations(folder: Path, digests: Collection[str] = ()) -> tuple[tuple[Evaluation, ...], list[str]]:
    """Every result file of a folder that can be shown, by subset; and what is wrong, a line each.

    ``digests`` are those of the run's checkpoints, if there are any.
    """
    evaluations: list[Evaluation] = []
    problems: list[str] = []
    coco_results = tuple(f'.{iou_type}.json' for iou_type in IOU_TYPES)
    for path in sorted(path for path in folder.glob('*.json') if not path.name.endswith(coco_results)):
        try:
            result = read_result(path)
        except InputError as error:
            problems.append(f'{error}; left out')
            continue
        identity = result.identity
        digest = str(identity.extra.get('checkpoint_sha256', ''))
        is_of_run = not digests or not digest or digest in digests
        if not is_of_run:
            problems.append(
                f"result must be of one of the run's checkpoints to be credited to it, got {identity.checkpoint}, "
                f'sha256 {digest[:12]}…, which the folder does not have (in {path}); {AGAIN}'
            )
        tables = {}
        for iou_type in result.scores:
            try:
                tables[iou_type] = MatchTable.load(matches_path(path, iou_type))
            except InputError as error:
                problems.append(f'{error}; no curves and differences from it')
        if result.images.not_seen:
            of = f'{result.images.not_seen} of {result.images.ground_truth}'
            problems.append(f'{of} images were not predicted (in {path})')
        problems += [f'{flag} (in {path})' for flag in identity.extra.get(FLAGS, ())]
        evaluations.append(Evaluation(path, str(identity.subset), str(identity.split), result, tables, is_of_run))
    return tuple(sorted(evaluations, key=lambda evaluation: subset_order(evaluation.subset))), problems


def subset_order(subset: str) -> tuple[int, str]:
    """What sorts subsets: ARMBench's in their order, then data of one's own by name."""
    return (SUBSETS.index(subset) if subset in SUBSETS else len(SUBSETS), subset)


def _read_corruptions(path: Path, digests: Collection[str]) -> run_folder.Corruptions:
    found = run_folder.read_corruptions(path)
    is_whole = all(len(found.corrupted.get(name, ())) >= len(SEVERITIES) for name in CORRUPTIONS)
    if not is_whole or (digests and found.checkpoint_sha256 not in digests):
        raise InputError(
            f'corruptions must all be measured, on a checkpoint that the run has (in {path}); {CORRUPT_AGAIN}'
        )
    return found


@dataclasses.dataclass(frozen=True)
class Run:
    """One work directory, under a short and unique name; ``number`` is its place in the report."""

    name: str
    work_dir: Path
    record: run_folder.RunRecord | None
    log: Log
    evaluations: tuple[Evaluation, ...]
    config: Config | None = None
    number: int = 0
    corruptions: tuple[run_folder.Corruptions, ...] = ()

    @property
    def config_path(self) -> str | None:
        """The config file as the record or a result names it."""
        named = [self.record.config] if self.record else []
        return next((path for path in [*named, *(e.result.identity.config for e in self.evaluations)] if path), None)

    @property
    def status(self) -> str:
        """Whether it ended well."""
        if self.record is None:
            return 'predictions of another model' if self.is_another_models else f'unknown: no {run_folder.RECORD}'
        status, message = self.record.status, self.record.message
        if status == 'running':  # nobody is there to correct the record of a process that was killed
            return 'unfinished'
        return f'{status}: {message}' if message else status

    @property
    def is_another_models(self) -> bool:
        """Whether it is no run but predictions from elsewhere, which have no log and no config."""
        every = [PREDICTIONS in evaluation.result.identity.extra for evaluation in self.evaluations]
        return self.record is None and bool(every) and all(every)

    @property
    def trained_on(self) -> str:
        """The subsets it was trained on, or ``–`` where that is not known."""
        return MISSING if self.config is None else training_subsets(self.config)

    @property
    def training_images(self) -> int | None:
        """To how many images its config limits the training, None if it does not say."""
        indices = None if self.config is None else self.config.train_dataloader.dataset.get('indices')
        return len(indices) if isinstance(indices, Sequence) else indices

    @property
    def recipe(self) -> str:
        """What it has in common with runs that differ from it by their seed alone."""
        if self.config is None:
            return str(self.work_dir)
        config = {key: value for key, value in self.config.to_dict().items() if key not in ('work_dir', 'launcher')}
        config['randomness'] = {**config.get('randomness', {}), 'seed': None}
        return json.dumps(config, sort_keys=True, default=repr)

    @property
    def is_procedural(self) -> bool:
        """Whether any of its data is minibench's."""
        loaders = [] if self.config is None else datasets(self.config)
        places = [(one.get('data_root'), one['type']) for one in loaders]
        ann_files = [evaluation.result.identity.extra.get('ann_file') for evaluation in self.evaluations]
        places += [(Path(ann_file).parents[1], '') for ann_file in ann_files if ann_file]
        return any(is_procedural(*place) for place in places)


def collect_runs(work_dirs: Sequence[str | Path]) -> tuple[list[Run], list[str]]:
    """The runs in which there is something to report, and a line for everything that is wrong or unfinished.

    Raises:
        InputError: There is nothing to report in any of them.
    """
    runs: list[Run] = []
    problems: list[str] = []
    folders = list(dict.fromkeys(Path(work_dir).resolve() for work_dir in work_dirs))
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        common = os.path.commonpath(folders)
        names = [os.path.relpath(folder, common) for folder in folders]
    for folder, name in zip(folders, shortened(names), strict=True):
        if not folder.is_dir():
            problems.append(f'work dir must be an existing folder, got {str(folder)!r}')
            continue
        run, own = _read_run(folder, name, len(runs))
        problems += [f'{name}: {problem}' for problem in own]
        if run.record or run.evaluations or run.corruptions or run.log.train or run.log.validation:
            runs.append(run)
        else:
            problems.append(f'work dir must hold a run ({run_folder.RECORD}, logs or results), got {str(folder)!r}')
    if not runs:
        raise InputError('; '.join(problems))
    return runs, problems


def shortened(names: Sequence[str]) -> list[str]:
    """Names without the words, between underscores, that all of them have: tables have little room."""
    words = [name.split('_') for name in names]
    common = set(words[0]).intersection(*words[1:]) if len(words) > 1 else set()
    short = ['_'.join(word for word in own if word not in common) for own in words]
    return short if all(short) and len(set(short)) == len(names) else [*names]


def _read_run(folder: Path, name: str, number: int) -> tuple[Run, list[str]]:
    """A run, and what is wrong with it."""
    digests = {sha256_of(path) for path in folder.glob('*.pth')}
    log, of_log = read_log(folder)
    evaluations, problems = read_evaluations(folder / run_folder.RESULTS, digests)
    record, corruptions = None, []
    try:
        record = run_folder.read_record(folder)
    except InputError as error:
        problems.append(str(error))
    for path in (folder / run_folder.CORRUPTIONS).glob('*.json'):
        try:
            corruptions.append(_read_corruptions(path, digests))
        except InputError as error:
            problems.append(f'{error}; left out')
    corruptions.sort(key=lambda one: (subset_order(one.subset), one.split))
    run = Run(name, folder, record, log, evaluations, number=number, corruptions=tuple(corruptions))
    if run.is_another_models:
        return run, problems
    config, of_config = dumped_config(folder)
    problems += of_log + of_config
    if record and record.status != 'finished':
        at = f' at iteration {log.last_step}' if log.last_step is not None else ''
        problems.append(f'the run did not finish{at}; its record says {run.status!r}')
    if not log.train and not log.validation:
        problems.append(f'no log with curves (looked for {run_folder.SCALARS} in {folder})')
    if not evaluations:
        problems.append(f'no result to show (in {folder / run_folder.RESULTS}); evaluate it with tools/test.py')
    return dataclasses.replace(run, config=config), problems


@dataclasses.dataclass(frozen=True)
class Entry:
    """A run's result; ``is_comparable`` if it is of the run and on the data that most of the others stand on."""

    run: Run
    evaluation: Evaluation
    is_comparable: bool

    @property
    def result(self) -> Result:
        """The result file."""
        return self.evaluation.result

    @property
    def label(self) -> str:
        """The run's name, with a dagger where it cannot be compared."""
        return self.run.name if self.is_comparable else f'{self.run.name} †'


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Every run's result on one subset and split."""

    subset: str
    split: str
    entries: tuple[Entry, ...]

    @property
    def title(self) -> str:
        """Subset and split."""
        return f'{self.subset}, {self.split}'

    def scored(self, iou_type: str) -> list[tuple[Entry, TypeScores]]:
        """The entries with scores under an IoU type, and these."""
        return [(e, e.result.scores[iou_type]) for e in self.entries if iou_type in e.result.scores]


def comparisons(runs: Sequence[Run]) -> tuple[list[Comparison], list[str]]:
    """Results on the same subset and split together; and a line for each that stands on other data than the others.

    Data are the same if their fingerprints are; a result without one can be compared with none.
    """
    found: dict[tuple[str, str], list[tuple[Run, Evaluation]]] = {}
    for run in runs:
        for evaluation in run.evaluations:
            found.setdefault((evaluation.subset, evaluation.split), []).append((run, evaluation))
    result, problems = [], []
    for subset, split in sorted(found, key=lambda key: (subset_order(key[0]), key[1] != 'test', key[1])):
        pairs = found[subset, split]
        known = Counter(one.fingerprint for _, one in pairs if one.fingerprint and one.is_of_run)
        common = known.most_common(1)[0][0] if known else None
        entries = [
            Entry(run, one, one.is_of_run and (one.fingerprint == common is not None or len(pairs) == 1))
            for run, one in pairs
        ]
        problems += [
            f'{entry.run.name}: result on {subset} {split} must be on the same data as the others, got '
            f'{entry.evaluation.fingerprint or "no data fingerprint"}, not {common}'
            for entry in entries
            if not entry.is_comparable and entry.evaluation.is_of_run
        ]
        result.append(Comparison(subset, split, tuple(entries)))
    return result, problems
