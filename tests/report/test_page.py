"""What the report says, against the result files it was made from; the page whole, self-contained and small."""

import csv
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from synthetic_runs import MASK_RCNN, write_result, write_run

from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.evaluation.matches import difference_intervals
from armbench_mmdet.evaluation.result import Result, read_result, shown
from armbench_mmdet.report import page as pages
from armbench_mmdet.report.answer import headline
from armbench_mmdet.report.collect import shortened
from armbench_mmdet.report.page import Report, comma_separated, gather, rendered
from armbench_mmdet.report.tables import Table, facts, published_table

MIX = f'{SUBSETS[0]}, test'
GAINS = 'AP at IoU 0.5 to be gained by correcting all errors of a kind'
PROCEDURAL = 'Minibench: these are procedurally drawn totes, not ARMBench photos.'


@pytest.fixture(scope='session')
def markdown(page: Path) -> str:
    return page.with_name('results.md').read_text()


@pytest.fixture
def results(work_dirs: list[Path]) -> dict[str, Result]:
    """The results on mix."""
    return {folder.name: read_result(folder / f'results/{SUBSETS[0]}_test.json') for folder in work_dirs}


def tables_of(report: Report) -> dict[str, Table]:
    return {one.caption: one for part in report.parts.values() for one in part if isinstance(one, Table)}


def test_the_better_run_is_named_with_its_lead(report: Report, work_dirs: list[Path], tmp_path: Path) -> None:
    for answer, comparison in zip(report.answers, report.compared, strict=True):
        gap = difference_intervals(*([entry.evaluation.tables['segm']] for entry in comparison.entries))['object']
        assert (answer.title, answer.winner) == (comparison.title, 'first' if gap.low > 0 else None)
        verdict = 'first is better than second at' if gap.low > 0 else 'first and second cannot be told apart by'
        assert answer.sentence.startswith(f'{verdict} object masks, AP ')
        assert f'{gap.value:+.3f} (95 % interval {gap.low:.3f}…{gap.high:.3f})' in answer.sentence
    winners = {answer.winner for answer in report.answers}
    assert headline(report.answers) == ('first is better on every subset.' if winners == {'first'} else '')
    (plot,) = report.parts['answer']
    assert [(trace['name'], len(trace['x'])) for trace in plot.data] == [('first', 3), ('second', 3)]
    shutil.copytree(work_dirs[0], tmp_path / 'twin')
    same = gather([work_dirs[0], tmp_path / 'twin']).answers
    assert ({answer.winner for answer in same}, headline(same)) == ({None}, '')


def test_runs_that_differ_by_their_seed_are_one_row(minibench_root, work_dirs: list[Path], tmp_path: Path) -> None:
    seeds = gather([*work_dirs, write_run(tmp_path / 'again', minibench_root, seed=1)])
    assert {name for name, _ in seeds.answers[0].scored} == {'second', 'first (2 seeds)'}
    table = tables_of(seeds)[f'{MIX}: masks, mean ± standard deviation over seeds']
    scores = [entry.result.segm.per_class['object'].mAP for entry in seeds.compared[0].entries[::2]]
    (row,) = (row for row in table.rows if row[0] == 'object')
    assert row[1:3] == ['first (2 seeds)', f'{np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f}']


def test_names_lose_what_all_of_them_have() -> None:
    both = ['mask-rcnn_r18_minibench', 'mask2former_r18_q30_minibench']
    assert shortened(both) == ['mask-rcnn', 'mask2former_q30']
    for names in (['a_b', 'a'], ['a_b', 'b_a'], ['a_b']):  # nothing would be left, or one name be another's
        assert shortened(names) == names


def test_scores_are_the_result_files_and_the_best_of_each_column_is_marked(report, results, markdown: str) -> None:
    assert report.problems == []
    table = tables_of(report)[f'{MIX}: masks']
    for i, (name, run, *cells) in enumerate(table.rows):
        interval = results[run].segm.confidence[name]
        assert cells.pop(1) == f'{interval.low:.3f}…{interval.high:.3f}'
        assert cells.pop() == str(results[run].segm.by_class[name].instances)
        texts = {run: [*map(shown, one.segm.by_class[name].numbers().values())] for run, one in results.items()}
        assert cells == texts[run]
        best = [text == max(both) != '–' for text, *both in zip(cells, *texts.values(), strict=True)]
        assert [(i, j) in table.best for j in (2, *range(4, 12))] == best
    assert f'**{table.rows[0][2]}**' in markdown


def test_tables_are_the_files(report: Report, results: dict[str, Result], markdown: str) -> None:
    first, second = results.values()
    size, best = first.segm.per_size['coco']['m'], first.operation['object'].best
    anatomy, point = second.anatomy, (best.threshold, best.precision, best.recall)
    timed = (first.speed, *first.speed.stages.values())
    times = [str(first.speed.threads), *(f'{one.median_ms:.0f} / {one.p95_ms:.0f}' for one in timed)]
    expected = {
        ('Results', 'second', SUBSETS[0], MIX): [second.segm.mAP, second.segm.mAP_50, second.segm.mAP_75],
        (f'{MIX}: masks by size', 'm, coco', 'first'): [size.mAP, size.mAP_50, size.mAP_75],
        (f'{MIX}: ms per image, median / 95th percentile', 'first', first.speed.device): times,
        (f'{MIX}: at one threshold, IoU 0.5', 'object', 'first'): ['this data', *point],
        (f'{MIX}: picks of objects', 'first'): [first.picks.success_1, first.picks.success_3],
        (f'{MIX}: shares of instances', 'tote', 'first'): [first.segmentation_errors['tote'].detected],
        (f'{MIX}: {GAINS}', 'object', 'second'): [anatomy.costs['object'].classification],
        (f'{MIX}: confusion', 'object', 'second'): [str(count) for count in anatomy.confusion['object'].values()],
        (f'{MIX}: confusion', 'background', 'second'): [*map(str, anatomy.confusion['background'].values()), '–'],
        ('Masks under corruption', MIX.replace(',', ''), 'object', 'first'): ['0.700', '0.400', '0.571'],
        ('Masks under corruption', f'{SUBSETS[2]} test', 'mean', 'second'): ['0.710', '0.410', '0.577'],
    }
    for (caption, *start), values in expected.items():
        table = tables_of(report)[caption]
        (cells,) = (row[len(start) :] for row in table.rows if row[: len(start)] == start)
        assert cells[: len(values)] == [one if isinstance(one, str) else shown(one) for one in values], caption
        assert table.markdown() in markdown
    suspects = [row for row in tables_of(report)[f'{MIX}: suspected labels'].rows if row[0] == 'second']
    assert [row[5] for row in suspects] == [shown(one.score) for one in anatomy.suspects] != []


def test_rows_of_numbers_have_everything(report: Report, results: dict[str, Result]) -> None:
    rows = list(csv.DictReader(io.StringIO(comma_separated(report))))
    assert len(rows) == 2 * 3 * 3 * 3  # runs, subsets, IoU types with boundaries, classes and their mean
    row = next(row for row in rows if (row['run'], row['class'], row['iou_type']) == ('second', 'object', 'segm'))
    result = results['second']
    assert float(row['mAP']) == result.segm.per_class['object'].mAP
    assert float(row['mAP_low']) == result.segm.confidence['object'].low
    assert row['data_fingerprint'] == result.identity.data_fingerprint
    assert (row['procedural'], row['comparable'], row['images']) == ('1', '1', '4')


def test_markdown_says_minibench_and_keeps_published_numbers_apart(markdown: str) -> None:
    sections = {part.splitlines()[0]: part for part in markdown.split('\n## ')}
    theirs = sections.pop('Published numbers')
    assert PROCEDURAL in sections['# Results']
    assert not any('0.6971' in part for part in sections.values())
    assert '| first' not in theirs
    assert all(cell in theirs for row in published_table().rows for cell in row)


def test_facts_are_of_the_training_and_of_each_result(report: Report, work_dirs: list[Path]) -> None:
    run = report.runs[0]
    assert Config.fromfile(work_dirs[0] / Path(MASK_RCNN).name).train_cfg is None, 'the config that testing left'
    assert run.config.optim_wrapper.optimizer.lr == 0.5
    known = facts(run)
    expected = {'seed': '7', 'attempts.0.git.revision': '1234abc', 'attempts.0.hardware.cores': '2'}
    expected[f'result on {SUBSETS[0]} test: data_fingerprint'] = run.evaluations[0].fingerprint
    assert expected.items() <= known.items()
    assert not {'', 'None', '[]'} & {*known.values()}


def test_a_class_that_a_subset_does_not_annotate_is_said(report: Report) -> None:
    table = tables_of(report)[f'{SUBSETS[2]}, test: masks; no tote is annotated']
    scores = {row[0]: row[2:4] for row in table.rows if row[1] == 'first'}
    assert (scores['mean'], scores['tote']) == (scores['object'], ['–', '–']), 'with their intervals'


def test_results_of_one_class_are_shown_beside_those_of_two(minibench_root, work_dirs, tmp_path: Path) -> None:
    write_result(tmp_path / 'one', minibench_root, SUBSETS[0], MASK_RCNN, 1.0, classes=('object',))
    report = gather([tmp_path / 'one', work_dirs[0]])
    assert not [line for line in report.problems if 'left out' in line or 'match table' in line]
    rows = {(row[0], row[1]): row[2:] for row in tables_of(report)[f'{MIX}: masks'].rows}
    assert ('tote', 'one') not in rows
    assert rows['object', 'one'] == rows['mean', 'one'] != rows['object', 'first']
    assert 'cannot be compared' in report.answers[0].sentence
    assert [one.kind for one in report.pictures if one.run == 'one'][:3] == ['best', 'median', 'worst']
    written = csv.DictReader(io.StringIO(comma_separated(report)))
    assert {row['class'] for row in written if row['run'] == 'one'} == {'mean', 'object'}


SECTIONS = ['answer', 'runs', 'results', 'published', 'training', 'precision-recall', 'operating', 'picks', 'size']
SECTIONS += ['density', 'speed', 'errors', 'anatomy', 'corruptions', 'suspects', 'pictures', 'provenance']


def test_the_page_is_whole_and_needs_nothing_else(page: Path, report: Report) -> None:
    own, _ = page.read_text().split('<script id="plotly">')
    assert re.findall(r'<section id="([^"]*)"', own) == SECTIONS
    addresses = re.findall(r'\b(?:src|href)="([^"]{,20})', own)
    assert {one[1:] for one in addresses if one.startswith('#')} == set(SECTIONS)
    assert all(one.startswith(('#', 'data:')) for one in addresses)
    assert not re.search(r'<img (?![^>]*alt="\w)', own)
    assert page.stat().st_size < 12e6
    assert 'id="procedural"' in own
    assert all(text in own for text in (PROCEDURAL, "default-src 'none'", *report.parts['published'][0].rows[0]))
    assert all(one.caption in own for one in tables_of(report).values())
    assert 'class="empty"' not in own


def test_names_cannot_break_the_page(work_dirs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, 'gallery', lambda runs: ([], []))
    monkeypatch.setattr('armbench_mmdet.report.collect.Run.is_procedural', False)
    name = '<script>alert(1)'
    shutil.copytree(work_dirs[0], tmp_path / name)
    text = rendered(gather([tmp_path / name]), 'page.html.j2')
    assert name not in text
    assert '&lt;script&gt;alert(1)' in text
    assert 'There are no pictures' in text
    assert 'id="procedural"' not in text, 'a run on photos has no banner'
