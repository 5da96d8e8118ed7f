"""Tables of scores, strata, differences and published numbers, and the provenance of a run."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import yaml
from mmengine.config import Config
from tabulate import tabulate

from armbench_mmdet.configs import differences_from_base
from armbench_mmdet.datasets.release import CLASSES, SUBSETS
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.bootstrap import Estimate, difference_intervals
from armbench_mmdet.evaluation.result import (
    MEAN,
    MISSING,
    PREDICTIONS,
    SUMMARY_KEYS,
    Anatomy,
    ErrorCosts,
    Result,
    SegmentationErrors,
    StratumScores,
    TypeScores,
    shown,
)
from armbench_mmdet.evaluation.strata import DENSITY_NAMES, VERDICTS
from armbench_mmdet.report.collect import Comparison, Entry, Run, ending, subset_order
from armbench_mmdet.run_folder import RECORD, Attempt

TOTE, OBJECT = CLASSES
LONGEST_VALUE = 240
CONFIGS_CHANGE = 'What its bases say now, beside what this run resolved to, command line included.'
MAIN_SCORES = ('segm mAP', 'mAP_50', 'mAP_75', f'{TOTE} mAP', f'{OBJECT} mAP', f'{OBJECT} mAP_50', 'bbox mAP')
TYPE_NAMES = {'segm': 'masks', 'boundary': 'mask boundaries', 'bbox': 'boxes'}
SIZE_NAMES = {'s': 'small', 'm': 'medium', 'l': 'large'}
SIZE_UNITS = {'relative': 'relative to the image', 'coco': 'in pixels'}
VERDICT_NAMES = {verdict: verdict.replace('_', '-') for verdict in VERDICTS}
SURE = ' *'
_STRATUM = ['mAP', *(f'{name} mAP' for name in CLASSES), 'mAP_50', 'mAP_75', 'AR_100', 'instances', 'images']


@dataclasses.dataclass(frozen=True)
class Cell:
    """A table's cell; ``is_best`` where it is the best of those it may be compared with."""

    text: str
    is_best: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for the page and for Markdown; ``text_columns`` at the left are text, the others are numbers."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    text_columns: int = 1
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """Caption, table and notes as Markdown."""
        rows = [[f'**{cell.text}**' if cell.is_best else cell.text for cell in row] for row in self.rows]
        return '\n\n'.join([f'**{self.caption}**', markdown_table(self.header, rows, self.text_columns), *self.notes])


def cells(*texts: str) -> list[Cell]:
    """Plain cells."""
    return [Cell(text) for text in texts]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Lay out a Markdown table with aligned columns; those at the left are text, the others are numbers."""
    escaped = [[cell.replace('|', '\\|') for cell in row] for row in rows]
    align = ['left'] * text_columns + ['right'] * (len(header) - text_columns)
    # Not 'github': that one aligns what a terminal shows, and not what Markdown is rendered to.
    return tabulate(escaped, header, tablefmt='pipe', disable_numparse=True, colalign=align)


def subset_table(results: Mapping[str, Result], trained_on: str) -> str:
    """One row for each subset tested on: mask AP over both classes, of tote and object apart, and box AP."""
    rows = [[trained_on, subset, *main_scores(result)] for subset, result in results.items()]
    return markdown_table(['trained on', 'tested on', *MAIN_SCORES], rows, text_columns=2)


def main_scores(result: Result) -> list[str]:
    """The numbers under :data:`MAIN_SCORES`, as they are shown."""
    bbox = result.bbox.mAP if result.bbox else None
    if result.segm is None:
        return [MISSING] * (len(MAIN_SCORES) - 1) + [shown(bbox)]
    segm, thing = result.segm, result.segm.per_class.get(OBJECT)
    by_class = [class_ap(segm, TOTE), class_ap(segm, OBJECT), thing.mAP_50 if thing else None]
    return [shown(one) for one in (segm.mAP, segm.mAP_50, segm.mAP_75, *by_class, bbox)]


def class_ap(scores: TypeScores, name: str) -> float | None:
    """A class's mAP; None where the result does not have the class."""
    return scores.per_class[name].mAP if name in scores.per_class else None


def score_table(comparison: Comparison, iou_type: str) -> Table:
    """Every run's scores under an IoU type, of both classes' mean and of each class.

    The best of what may be compared is marked, as far as three digits tell.
    """
    scored = comparison.scored(iou_type)
    rows = []
    for name in (MEAN, *CLASSES):
        texts = [_score_texts(scores, name) for _, scores in scored]
        comparable = [own for (entry, _), own in zip(scored, texts, strict=True) if entry.is_comparable]
        known = [[text for text in column if text != MISSING] for column in zip(*comparable, strict=True)]
        best = [max(column) if len(column) > 1 else None for column in known] or [None] * len(SUMMARY_KEYS)
        for (entry, scores), own in zip(scored, texts, strict=True):
            marked = (Cell(text, entry.is_comparable and text == top) for text, top in zip(own, best, strict=True))
            first, *others = marked
            interval, instances = cells(*_about(scores, name))
            rows.append([*cells(name, entry.label), first, interval, *others, instances])
    notes = ['95 % interval: of the mAP, by drawing the images anew; mAP_s, mAP_m, mAP_l: by COCO’s pixel sizes.']
    if any(not entry.is_comparable for entry, _ in scored):
        notes.append(
            '† on other data than the others, or of a checkpoint that the run does not have; not to be compared.'
        )
    first_score, *other_scores = SUMMARY_KEYS
    header = ['class', 'run', first_score, '95 % interval', *other_scores, 'instances']
    absent = dict.fromkeys(name for entry in comparison.entries for name in entry.result.not_annotated)
    notes += [f'No {name} is annotated here: it has no score and no part in the mean.' for name in absent]
    return Table(f'{comparison.title}: {TYPE_NAMES[iou_type]}', header, rows, 2, notes)


def _score_texts(scores: TypeScores, name: str) -> list[str]:
    own = scores.by_class.get(name)
    return [shown(number) for number in own.numbers().values()] if own else [MISSING] * len(SUMMARY_KEYS)


def _about(scores: TypeScores, name: str) -> tuple[str, str]:
    """The interval of a class's mAP and its instances."""
    own, interval = scores.by_class.get(name), (scores.confidence or {}).get(name)
    ends = MISSING if interval is None or interval.low is None else f'{shown(interval.low)}…{shown(interval.high)}'
    return ends, str(own.instances) if own else MISSING


def difference_table(comparison: Comparison, iou_type: str) -> Table | None:
    """What the run with the highest mAP has over each other one, on the same images, with intervals."""
    tables = [
        (entry, entry.evaluation.tables[iou_type])
        for entry, _ in sorted(comparison.scored(iou_type), key=lambda pair: -(pair[1].mAP or 0))
        if entry.is_comparable and iou_type in entry.evaluation.tables
    ]
    if len(tables) < 2:
        return None
    rows, notes = [], []
    best, best_table = tables[0]
    for entry, table in tables[1:]:
        try:
            intervals = difference_intervals([best_table], [table])
        except InputError as error:
            notes.append(f'{best.label} − {entry.label}: {error}.')
            continue
        differences = [_difference(intervals.get(name)) for name in (MEAN, *CLASSES)]
        rows.append(cells(f'{best.label} − {entry.label}', *differences))
    return Table(
        f'{comparison.title}: paired differences in mAP, {TYPE_NAMES[iou_type]}',
        ['runs', MEAN, *CLASSES],
        rows,
        notes=[f'Both runs on the same draws of images, 95 % interval;{SURE} where it does not hold 0.', *notes],
    )


def _difference(interval: Estimate | None) -> str:
    if interval is None or interval.value is None or interval.low is None or interval.high is None:
        return MISSING
    sure = SURE if interval.low > 0 or interval.high < 0 else ''
    return f'{interval.value:+.3f} ({interval.low:+.3f}…{interval.high:+.3f}){sure}'


def matrix_table(found: Sequence[Comparison], split: str) -> Table:
    """Training subset against test subset: mask mAP of both classes' mean and of the object class alone."""
    trained_on: dict[str, str] = {}
    pairs: dict[tuple[str, str], str] = {}
    for comparison in found:
        for entry in comparison.entries if comparison.split == split else ():
            trained_on[entry.run.name] = entry.run.trained_on or MISSING
            if entry.result.segm:
                pair = f'{shown(entry.result.segm.mAP)} / {shown(class_ap(entry.result.segm, OBJECT))}'
                pairs[entry.run.name, comparison.subset] = pair if entry.is_comparable else f'{pair} †'
    subsets = sorted({*SUBSETS, *(subset for _, subset in pairs)}, key=subset_order)
    rows = [
        cells(trained_on[run], run, *(pairs.get((run, subset), MISSING) for subset in subsets))
        for run in sorted(trained_on, key=lambda run: trained_on[run])
    ]
    not_trained_on = [subset for subset in SUBSETS if not any(subset in names for names in trained_on.values())]
    notes = ['Mask mAP: mean of both classes / object class alone (the tote flatters the mean).']
    if not_trained_on:
        notes.append(f'No run here is known to be trained on {", ".join(not_trained_on)}.')
    return Table(f'Trained on × tested on ({split})', ['trained on', 'run', *subsets], rows, 2, notes)


def size_table(comparison: Comparison) -> Table:
    """Mask scores by size of the instance, in bins of the image area and of pixels."""
    rows = [
        [*cells(f'{SIZE_NAMES[size]} ({SIZE_UNITS[unit]})', entry.label), *_stratum(segm.per_size[unit][size])]
        for unit in SIZE_UNITS
        for size in SIZE_NAMES
        for entry, segm in comparison.scored('segm')
    ]
    return Table(f'{comparison.title}: masks by size', ['size', 'run', *_STRATUM], rows, 2)


def density_table(comparison: Comparison) -> Table:
    """Mask scores by the number of instances in the image."""
    filled = filled_densities(comparison)
    rows = [
        [*cells(name, entry.label), *_stratum(segm.per_density[name])]
        for name in filled
        for entry, segm in comparison.scored('segm')
    ]
    empty = ', '.join(name for name in DENSITY_NAMES if name not in filled)
    notes = [f'No image has {empty} instances.'] if empty else []
    return Table(f'{comparison.title}: masks by density', ['instances per image', 'run', *_STRATUM], rows, 2, notes)


def filled_densities(comparison: Comparison) -> list[str]:
    """The density bins with images in them."""
    scored = comparison.scored('segm')
    return [name for name in DENSITY_NAMES if any(segm.per_density[name].images for _, segm in scored)]


def _stratum(scores: StratumScores) -> list[Cell]:
    numbers = [scores.mAP, *map(scores.per_class.get, CLASSES), scores.mAP_50, scores.mAP_75, scores.AR_100]
    return cells(*map(shown, numbers), str(scores.instances), str(scores.images))


def speed_table(comparison: Comparison) -> Table:
    """Milliseconds per image, median and 95th percentile, overall and by density, and the peak of memory."""
    rows = []
    for entry in comparison.entries:
        speed = entry.result.speed
        if speed is not None:
            times = [speed, *(speed.per_density.get(name) for name in DENSITY_NAMES)]
            texts = [f'{shown(one.median_ms, 0)} / {shown(one.p95_ms, 0)}' if one else MISSING for one in times]
            memory = [shown(speed.peak_memory_mb, 0), shown(speed.peak_gpu_memory_mb, 0)]
            rows.append(cells(entry.label, speed.device, str(speed.images), *texts, *memory))
    return Table(
        caption=f'{comparison.title}: ms per image, median / 95th percentile, by instances per image',
        header=['run', 'device', 'images', 'all', *DENSITY_NAMES, 'peak memory, MB', 'peak GPU memory, MB'],
        rows=rows,
        text_columns=2,
        notes=[
            'From the loaded batch to finished masks; reading the image is not in it. '
            'Only times on the same, otherwise idle machine compare.',
            *(f'{e.label}: no times in its result file.' for e in comparison.entries if e.result.speed is None),
        ],
    )


def error_table(comparison: Comparison) -> Table:
    """The share of instances found, split, merged and missed."""
    rows = []
    for name in CLASSES:
        for entry in comparison.entries:
            errors = errors_of(entry, name)
            if errors is not None:
                shares = [shown(getattr(errors, verdict)) for verdict in VERDICTS]
                rows.append(cells(name, entry.label, *shares, str(errors.instances)))
    without = [entry.label for entry in comparison.entries if entry.result.segmentation_errors is None]
    return Table(
        caption=f'{comparison.title}: shares of instances',
        header=['class', 'run', *VERDICT_NAMES.values(), 'instances'],
        rows=rows,
        text_columns=2,
        notes=[
            'Predictions with a score of 0.5 or more. Over-segmented: several predictions on one instance; '
            'under-segmented: one prediction over several instances.',
            *(f'{label}: no such shares in its result file.' for label in without),
        ],
    )


def operating_table(comparison: Comparison) -> Table:
    """Precision, recall and F1 at the threshold of ``val``, or at the one that suits the data best; calibration."""
    rows = []
    for name in CLASSES:
        for entry in comparison.entries:
            one = (entry.result.operation or {}).get(name)
            point = one and (one.of_val or one.best)
            if one and point:
                of = 'val' if one.of_val else 'this data'
                numbers = (point.threshold, point.precision, point.recall, point.f1, one.calibration_error)
                rows.append(cells(name, entry.label, of, *map(shown, numbers)))
    return Table(
        caption=f'{comparison.title}: at one threshold, IoU 0.5',
        header=['class', 'run', 'threshold chosen on', 'threshold', 'precision', 'recall', 'F1', 'calibration error'],
        rows=rows,
        text_columns=3,
        notes=[
            'The threshold of the highest F1. One that was chosen on the data itself flatters: test on val first, and '
            'the threshold of val is taken.'
        ],
    )


def pick_table(comparison: Comparison) -> Table:
    """Success of the first picks, and objects miscounted."""
    rows = []
    for entry in comparison.entries:
        picks = entry.result.picks
        if picks:
            numbers = [picks.success_1, picks.success_3, picks.success_5, picks.count_error, picks.count_score]
            rows.append(cells(entry.label, *map(shown, numbers), str(picks.images)))
    header = ['run', 'first', 'first three', 'first five', 'miscounted an image', 'counted from score', 'images']
    about = 'The share of the surest masks whose most interior point lies on an object that was not picked before, and '
    notes = [about + 'that cover no other object by more than a quarter.']
    return Table(f'{comparison.title}: picks of {OBJECT}s', header, rows, notes=notes)


def cost_table(comparison: Comparison) -> Table:
    """What each kind of error costs in AP at IoU 0.5, and the optimal LRP."""
    rows = [
        cells(name, label, *map(shown, msgspec.structs.astuple(one.costs[name])), shown(lrp.error if lrp else None))
        for name in (MEAN, *CLASSES)
        for label, one in _anatomies(comparison)
        if name in one.costs
        for lrp in [one.lrp.get(name)]
    ]
    return Table(
        f'{comparison.title}: AP at IoU 0.5 to be gained by correcting all errors of a kind',
        ['class', 'run', *ErrorCosts.__struct_fields__, 'LRP'],
        rows,
        2,
        ['Kinds as in TIDE; gains do not add up. LRP: optimal localisation recall precision error, less is better.'],
    )


def confusion_table(comparison: Comparison) -> Table:
    """What instances are taken for, and what detections lie on."""
    rows = [
        cells(label, truth, *(str(row.get(name, MISSING)) for name in (*CLASSES, 'missed')))
        for label, one in _anatomies(comparison)
        for truth, row in one.confusion.items()
    ]
    header = ['run', 'annotated', *(f'as {name}' for name in CLASSES), 'missed']
    notes = ['Instances and predictions with a score of 0.5 or more, matched at mask IoU 0.5, own class first.']
    return Table(f'{comparison.title}: confusion', header, rows, 2, notes)


def suspect_table(comparison: Comparison) -> Table:
    """The labels that sure detections contradict, the surest first."""
    rows, notes = (
        [],
        ['Where a model is sure and the labels say otherwise, one of both is wrong: look before you mend.'],
    )
    for run, anatomy in _anatomies(comparison):
        for one in anatomy.suspects:
            where = ', '.join(f'{side:.0f}' for side in one.box)
            label = MISSING if one.annotated is None else f'{one.annotated} {one.annotation_id}'
            about = (one.image or str(one.image_id), one.fault, label, f'{one.predicted} at {where}')
            rows.append(cells(run, *about, shown(one.score), shown(one.iou)))
        if anatomy.suspected > len(anatomy.suspects):
            notes.append(f'{run}: the worst {len(anatomy.suspects)} of {anatomy.suspected}.')
    header = ['run', 'image', 'fault', 'annotation', 'prediction at x, y, width, height', 'score', 'IoU']
    return Table(f'{comparison.title}: suspected labels', header, rows, 5, notes)


def _anatomies(comparison: Comparison) -> list[tuple[str, Anatomy]]:
    return [(entry.label, entry.result.anatomy) for entry in comparison.entries if entry.result.anatomy]


def errors_of(entry: Entry, name: str) -> SegmentationErrors | None:
    """A class's over- and under-segmentation."""
    return (entry.result.segmentation_errors or {}).get(name)


def published_table() -> Table:
    """Every published number with its split, protocol and caveat."""
    published = yaml.safe_load((Path(__file__).parent / 'published.yml').read_text(encoding='utf-8'))
    header = ['source', *SUBSETS, 'split', 'protocol', 'caveat']
    rows = []
    for one in published:
        scores = [one['scores'].get(subset, MISSING) for subset in SUBSETS]
        about = [one[key] for key in ('split', 'protocol', 'caveat')]
        rows.append(cells(f'{one["source"]} ({one["where"]})', *scores, *about))
    return Table('Published by others, on the ARMBench photos', header, rows, text_columns=len(header))


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
        kind = PREDICTIONS if PREDICTIONS in identity.extra else 'checkpoint'
        sha256 = identity.extra.get(f'{kind}_sha256')
        yield f'tested: {evaluation.subset} {evaluation.split}', evaluation.fingerprint or MISSING
        measured = identity.extra.get(PREDICTIONS) or identity.checkpoint or MISSING
        yield f'{kind} for {evaluation.subset} {evaluation.split}', measured + (f', sha256:{sha256}' if sha256 else '')


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
