"""What the report says, against the result files it was made from; the page whole, self-contained and small."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config
from synthetic_runs import MASK_RCNN, write_data, write_result

from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.evaluation.result import read_result, shown
from armbench_mmdet.report import page as pages
from armbench_mmdet.report.page import PARTS, Report, comma_separated, gather, html, markdown
from armbench_mmdet.report.pictures import KINDS
from armbench_mmdet.report.tables import facts, published_table

PROCEDURAL = 'Minibench: these are procedurally drawn totes, not ARMBench photos.'


def test_scores_are_the_result_files_and_the_best_of_each_column_is_marked(
    report: Report, work_dirs: list[Path]
) -> None:
    assert report.problems == []
    table = report.parts['results'][1]
    assert table.caption == f'{SUBSETS[0]}, test: masks'
    results = {one.name: read_result(one / f'results/{SUBSETS[0]}_test.json').segm for one in work_dirs}
    for i, (name, run, *cells) in enumerate(table.rows):
        interval = results[run].confidence[name]
        assert cells.pop(1) == f'{interval.low:.3f}…{interval.high:.3f}'
        assert cells.pop() == str(results[run].by_class[name].instances)
        texts = {
            run: [shown(number) for number in one.by_class[name].numbers().values()] for run, one in results.items()
        }
        assert cells == texts[run]
        best = [text == max(both) != '–' for text, *both in zip(cells, *texts.values(), strict=True)]
        assert [(i, j) in table.best for j in (2, *range(4, 12))] == best
    assert f'**{table.rows[0][2]}**' in table.markdown()


def test_the_overview_has_a_row_for_each_result(report: Report, work_dirs: list[Path]) -> None:
    table = report.parts['results'][0]
    assert [row[0] for row in table.rows] == ['first', 'second'] * 3
    segm = read_result(work_dirs[1] / f'results/{SUBSETS[0]}_test.json').segm
    numbers = [f'{segm.mAP:.3f}', f'{segm.mAP_50:.3f}', f'{segm.mAP_75:.3f}']
    assert table.rows[1][1:6] == [SUBSETS[0], f'{SUBSETS[0]}, test', *numbers]
    assert table.markdown() in markdown(report)


def test_parts_are_the_result_files(report: Report, work_dirs: list[Path]) -> None:
    parts = {name: [make(report.compared[0]) for make in own] for name, own in PARTS.items()}
    first, second = (read_result(folder / f'results/{SUBSETS[0]}_test.json') for folder in work_dirs)

    def row(part: str, *start: str, table: int = -1) -> list[str]:
        (found,) = (row for row in parts[part][table].rows if tuple(row[: len(start)]) == start)
        return [*found[len(start) :]]

    small = first.segm.per_size['coco']['s']
    sizes = row('size', 'small (in pixels)', 'first')
    assert (sizes[0], sizes[-1]) == (f'{small.mAP:.3f}', f'{small.per_class["object"]:.3f}')
    assert {row[0] for row in parts['density'][0].rows} == {'1-5', '6-10'}
    times = [first.speed, first.speed.stages['load']]
    assert row('speed', 'first')[2:4] == [f'{one.median_ms:.0f} / {one.p95_ms:.0f}' for one in times]
    best = first.operation['object'].best
    shown = ['this data', f'{best.threshold:.3f}', f'{best.precision:.3f}']
    assert row('operating', 'object', 'first')[:3] == shown
    assert row('picks', 'first')[:2] == [f'{first.picks.success_1:.3f}', f'{first.picks.success_3:.3f}']
    for shares in parts['errors'][0].rows:
        assert sum(map(float, shares[2:-1])) == pytest.approx(1, abs=0.002)
    anatomy = second.anatomy
    costs = row('anatomy', 'object', 'second', table=0)
    assert costs[0] == f'{anatomy.costs["object"].classification:.3f}'
    assert costs[-1] == f'{anatomy.lrp["object"].error:.3f}'
    counts = [str(count) for count in anatomy.confusion['object'].values()]
    assert row('anatomy', 'object', 'second') == counts
    assert row('anatomy', 'background', 'second')[-1] == '–'
    own = [row[5] for row in parts['suspects'][0].rows if row[0] == 'second']
    assert own == [f'{one.score:.3f}' for one in anatomy.suspects] != []


def test_means_under_corruption_are_the_files(report: Report) -> None:
    rows = {tuple(row[:3]): row[3:] for row in report.parts['corruptions'][0].rows}
    assert len(rows) == 2 * (3 + 2)  # runs; classes and their mean
    assert rows[f'{SUBSETS[0]} test', 'object', 'first'] == ['0.700', '0.400', '0.571']
    assert rows[f'{SUBSETS[2]} test', 'mean', 'second'] == ['0.710', '0.410', '0.577']
    assert '0.571' in html(report)
    assert '0.571' in markdown(report)


def test_rows_of_numbers_have_everything(report: Report, work_dirs: list[Path]) -> None:
    rows = list(csv.DictReader(io.StringIO(comma_separated(report))))
    assert len(rows) == 2 * 3 * 3 * 3  # runs, subsets, IoU types with boundaries, classes and their mean
    row = next(row for row in rows if (row['run'], row['class'], row['iou_type']) == ('second', 'object', 'segm'))
    result = read_result(work_dirs[1] / f'results/{row["subset"]}_test.json')
    assert float(row['mAP']) == result.segm.per_class['object'].mAP
    assert float(row['mAP_low']) == result.segm.confidence['object'].low
    assert row['data_fingerprint'] == result.identity.data_fingerprint
    assert (row['procedural'], row['comparable'], row['images']) == ('1', '1', '6')


def test_markdown_says_minibench_and_keeps_published_numbers_apart(report: Report) -> None:
    sections = {part.splitlines()[0]: part for part in markdown(report).split('\n## ')}
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
    assert known['seed'] == '7'
    assert known['attempts.0.git.revision'] == '1234abc'
    assert known['attempts.0.hardware.cores'] == '2'
    assert known['data.mix-object-tote/train.json'] == 'sha256:feed'
    assert known[f'result on {SUBSETS[0]} test: data_fingerprint'] == run.evaluations[0].fingerprint
    assert not {'', 'None', '[]'} & {*known.values()}


def test_a_class_that_a_subset_does_not_annotate_is_said(tmp_path: Path) -> None:
    data = write_data(tmp_path / 'data')
    file = data / SUBSETS[2] / 'test.json'
    truth = json.loads(file.read_text())
    truth['annotations'] = [one for one in truth['annotations'] if one['category_id'] == 2]
    file.write_text(json.dumps(truth))
    write_result(tmp_path / 'run', data, SUBSETS[2], MASK_RCNN, 1.0)
    table = gather([tmp_path / 'run']).parts['results'][1]
    assert table.caption.endswith('; no tote is annotated')
    mean, tote, own = (row[2] for row in table.rows)
    assert (mean, tote) == (own, '–')


def test_results_of_one_class_are_shown_beside_those_of_two(data: Path, work_dirs: list[Path], tmp_path: Path) -> None:
    write_result(tmp_path / 'one', data, SUBSETS[0], MASK_RCNN, 1.0, classes=('object',))
    report = gather([tmp_path / 'one', work_dirs[0]])
    assert not [line for line in report.problems if 'left out' in line or 'match table' in line]
    rows = {(row[0], row[1]): row[2:] for row in report.parts['results'][1].rows}
    assert ('tote', 'one') not in rows
    assert rows['object', 'one'] == rows['mean', 'one'] != rows['object', 'first']
    assert 'cannot be compared' in report.answers[0].sentence
    assert {one.kind for one in report.pictures if one.run == 'one'} == set(KINDS)
    assert 'id="size"' in html(report)
    written = csv.DictReader(io.StringIO(comma_separated(report)))
    assert {row['class'] for row in written if row['run'] == 'one'} == {'mean', 'object'}


SECTIONS = ['answer', 'runs', 'results', 'published', 'training', 'precision-recall', 'operating', 'picks', 'size']
SECTIONS += ['density', 'speed', 'errors', 'anatomy', 'corruptions', 'suspects', 'pictures', 'provenance']


def test_the_page_is_whole_and_needs_nothing_else(page: Path) -> None:
    own, _ = page.read_text().split('<script id="plotly">')
    assert re.findall(r'<section id="([^"]*)"', own) == SECTIONS
    addresses = re.findall(r'\b(?:src|href)="([^"]{,20})', own)
    assert {one[1:] for one in addresses if one.startswith('#')} == set(SECTIONS)
    assert all(one.startswith(('#', 'data:')) for one in addresses)
    assert not re.search(r'<img (?![^>]*alt="\w)', own)
    assert page.stat().st_size < 12e6
    assert 'id="procedural"' in own
    assert PROCEDURAL in own
    assert all(row[-1] in own for row in published_table().rows)
    assert "default-src 'none'" in own


def test_names_cannot_break_the_page(work_dirs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, 'gallery', lambda runs: ([], []))
    name = '<script>alert(1)'
    shutil.copytree(work_dirs[0], tmp_path / name)
    text = html(gather([tmp_path / name]))
    assert name not in text
    assert '&lt;script&gt;alert(1)' in text
    assert 'There are no pictures' in text


def test_a_run_on_photos_has_no_banner(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('armbench_mmdet.report.collect.Run.is_procedural', False)
    assert 'id="procedural"' not in html(report)
