"""Runs, their logs and their results, collected from folders."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from statistics import mode

from mmengine.config import Config

from armbench_mmdet import run_folder
from armbench_mmdet.configs import datasets, dumped_config, training_subsets
from armbench_mmdet.datasets.armbench import is_procedural
from armbench_mmdet.datasets.release import SUBSETS
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import MatchTable
from armbench_mmdet.evaluation.protocol import IOU_TYPES
from armbench_mmdet.evaluation.result import FLAGS, MISSING, PREDICTIONS, Result, matches_path, read_result
from armbench_mmdet.files import sha256_of
from armbench_mmdet.transforms.corruption import CORRUPTIONS, SEVERITIES

AGAIN = 'evaluate again with tools/test.py'

Curves = dict[str, tuple[list[int], list[float | None]]]
"""What a run logged, by its key: rising training iterations, and the values there, None for NaN or infinity."""


def read_curves(work_dir: Path) -> tuple[Curves, list[str]]:
    """Read the logs of every attempt; with the curves comes what is wrong with the logs, a line each.

    An attempt counts from its first step on: what an earlier one logged there or after was undone by resuming from a
    checkpoint before it, or by starting afresh. Schedules by epoch log validation by epoch; it is placed at the last
    training iteration logged in that epoch.
    """
    curves: dict[str, dict[int, float | None]] = {}
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
                curves = {key: {at: own[at] for at in own if at < step} for key, own in curves.items()}
                is_new = False
            if any(key.startswith(run_folder.VALIDATION_PREFIXES) for key in row):
                step = epochs.get(step, step)
            elif 'epoch' in row:
                epochs[row['epoch']] = step
            for key, value in row.items():
                if isinstance(value, int | float):
                    curves.setdefault(key, {})[step] = value if math.isfinite(value) else None
    return {key: (sorted(own), [own[at] for at in sorted(own)]) for key, own in curves.items() if own}, problems


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A result file, and the match tables beside it by IoU type.

    It ``is_of_run`` if it was measured on a checkpoint that the run's folder has, as far as one can tell.
    """

    path: Path
    subset: str
    split: str
    result: Result
    tables: dict[str, MatchTable]
    is_of_run: bool

    @property
    def fingerprint(self) -> str | None:
        """The digest of the annotation file."""
        return self.result.identity.data_fingerprint


@contextlib.contextmanager
def noted(problems: list[str], consequence: str = '') -> Iterator[None]:
    """Write down what is wrong with the input and what becomes of it, and go on after the block."""
    try:
        yield
    except InputError as error:
        problems.append(f'{error}{consequence}')


def read_evaluations(folder: Path, digests: Collection[str] = ()) -> tuple[list[Evaluation], list[str]]:
    """Every result file of a folder that can be shown, by subset; and what is wrong, a line each.

    ``digests`` are those of the run's checkpoints, if there are any.
    """
    evaluations: list[Evaluation] = []
    problems: list[str] = []
    coco_results = tuple(f'.{iou_type}.json' for iou_type in IOU_TYPES)
    for path in sorted(path for path in folder.glob('*.json') if not path.name.endswith(coco_results)):
        with noted(problems, '; left out'):
            evaluations.append(_read_evaluation(path, digests, problems))
    return sorted(evaluations, key=lambda evaluation: subset_order(evaluation.subset)), problems


def _read_evaluation(path: Path, digests: Collection[str], problems: list[str]) -> Evaluation:
    result = read_result(path)
    identity, images = result.identity, result.images
    digest = str(identity.extra.get('checkpoint_sha256', ''))
    is_of_run = not digests or not digest or digest in digests
    if not is_of_run:
        problems.append(
            f"result must be of one of the run's checkpoints to be credited to it, got {identity.checkpoint}, "
            f'sha256 {digest[:12]}…, which the folder does not have (in {path}); {AGAIN}'
        )
    tables = {}
    for iou_type in result.scores:
        with noted(problems, '; no curves and differences from it'):
            tables[iou_type] = MatchTable.load(matches_path(path, iou_type))
    if images.not_seen:
        problems.append(f'{images.not_seen} of {images.ground_truth} images were not predicted (in {path})')
    problems += [f'{flag} (in {path})' for flag in identity.extra.get(FLAGS, ())]
    return Evaluation(path, str(identity.subset), str(identity.split), result, tables, is_of_run)


def subset_order(subset: str) -> tuple[int, str]:
    """What sorts subsets: ARMBench's in their order, then data of one's own by name."""
    return (SUBSETS.index(subset) if subset in SUBSETS else len(SUBSETS), subset)


def _read_corruptions(path: Path, digests: Collection[str]) -> run_folder.Corruptions:
    found = run_folder.read_corruptions(path)
    is_whole = all(len(found.corrupted.get(name, ())) >= len(SEVERITIES) for name in CORRUPTIONS)
    if not is_whole or (digests and found.checkpoint_sha256 not in digests):
        raise InputError(
            f'corruptions must all be measured, on a checkpoint that the run has (in {path}); '
            'go on with tools/test.py --corruptions'
        )
    return found


@dataclasses.dataclass(frozen=True)
class Run:
    """One work directory, under a short and unique name; ``number`` is its place in the report."""

    name: str
    number: int
    work_dir: Path
    record: run_folder.RunRecord | None
    config: Config | None
    curves: Curves
    evaluations: list[Evaluation]
    corruptions: list[run_folder.Corruptions]

    @property
    def last_step(self) -> int | None:
        """The last training iteration that was logged."""
        return self.curves['loss'][0][-1] if 'loss' in self.curves else None

    @property
    def config_path(self) -> str | None:
        """The config file as the record or a result names it."""
        named = [self.record.config] if self.record else [e.result.identity.config for e in self.evaluations]
        return next(filter(None, named), None)

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

    An ``InputError`` if there is nothing to report in any of them.
    """
    runs: list[Run] = []
    problems: list[str] = []
    folders = list(dict.fromkeys(Path(work_dir).resolve() for work_dir in work_dirs))
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = ['_'.join(folder.parts) for folder in folders]
    for folder, name in zip(folders, shortened(names), strict=True):
        run, own = _read_run(folder, name, len(runs))
        runs += [run] if run else []
        problems += [f'{name}: {problem}' for problem in own]
    if not runs:
        raise InputError('; '.join(problems))
    return runs, problems


def shortened(names: Sequence[str]) -> list[str]:
    """Names without the words, between underscores, that all of them have: tables have little room."""
    words = [name.split('_') for name in names]
    common = set(words[0]).intersection(*words[1:]) if len(words) > 1 else set()
    short = ['_'.join(word for word in own if word not in common) for own in words]
    return short if all(short) and len(set(short)) == len(names) else [*names]


def _read_run(folder: Path, name: str, number: int) -> tuple[Run | None, list[str]]:
    """A run, if there is anything of one, and what is wrong with it."""
    digests = {sha256_of(path) for path in folder.glob('*.pth')}
    curves, of_log = read_curves(folder)
    evaluations, problems = read_evaluations(folder / run_folder.RESULTS, digests)
    record, corruptions = None, []
    with noted(problems):
        record = run_folder.read_record(folder)
    for path in (folder / run_folder.CORRUPTIONS).glob('*.json'):
        with noted(problems, '; left out'):
            corruptions.append(_read_corruptions(path, digests))
    corruptions.sort(key=lambda one: (subset_order(one.subset), one.split))
    if not (record or evaluations or corruptions or curves):
        wanted = f'a folder with a run in it ({run_folder.RECORD}, logs or results)'
        return None, [*problems, f'work dir must be {wanted}, got {str(folder)!r}']
    config, of_config = dumped_config(folder)
    run = Run(name, number, folder, record, config, curves, evaluations, corruptions)
    if run.is_another_models:
        return run, problems
    problems += of_log + of_config
    if record and record.status != 'finished':
        at = f' at iteration {run.last_step}' if run.last_step is not None else ''
        problems.append(f'the run did not finish{at}; its record says {run.status!r}')
    if not curves:
        problems.append(f'no log with curves (looked for {run_folder.SCALARS} in {folder})')
    if not evaluations:
        problems.append(f'no result to show (in {folder / run_folder.RESULTS}); evaluate it with tools/test.py')
    return run, problems


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
    """Every run's result on one subset and split, which ``title`` names."""

    title: str
    entries: list[Entry]


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
        known = [one.fingerprint for _, one in pairs if one.fingerprint and one.is_of_run]
        common = mode(known) if known else None
        entries = []
        for run, one in pairs:
            is_alike = one.fingerprint == common is not None or len(pairs) == 1
            entries.append(Entry(run, one, one.is_of_run and is_alike))
            if one.is_of_run and not is_alike:
                problems.append(
                    f'{run.name}: result on {subset} {split} must be on the same data as the others, got '
                    f'{one.fingerprint or "no data fingerprint"}, not {common}'
                )
        result.append(Comparison(f'{subset}, {split}', entries))
    return result, problems
