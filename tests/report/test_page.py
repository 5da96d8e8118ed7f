"""What the report says, against the result files it was made from; the page whole, self-contained and small."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from synthetic_runs import MASK_RCNN, write_data, write_result

from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.evaluation.result import read_result
from armbench_mmdet.report import page as pages
from armbench_mmdet.report.page import PROCEDURAL, Report, comma_separated, gather, html, markdown
from armbench_mmdet.report.pictures import KINDS
from armbench_mmdet.report.tables import (
    confusion_table,
    corruption_table,
    cost_table,
    density_table,
    error_table,
    operating_table,
    pick_table,
    published_table,
    size_table,
    speed_table,
    suspect_table,
)


def test_scores_are_the_result_files_and_the_best_of_each_column_is_marked(
    report: Report, work_dirs: list[Path]
) -> None:
    assert report.problems == []
    table = report.scores[0]
    assert table.caption == f'{SUBSETS[0]}, test: masks'
    results = [read_result(folder / f'results/{SUBSETS[0]}_test.json').scores['segm'] for folder in work_dirs]
    for i, row in enumerate(table.rows):
        one, other = (scores.by_class[row[0]] for scores in results[:: -1 if row[1] == 'second' else 1])
        for j, key in enumerate(table.header[2:-1], 2):
            if key == '95 % interval':
                interval = results[row[1] == 'second'].confidence[row[0]]
                assert row[j] == f'{interval.low:.3f}…{interval.high:.3f}'
                continue
            texts = ['–' if number is None else f'{number:.3f}' for number in (getattr(one, key), getattr(other, key))]
            assert row[j] == texts[0]
            assert ((i, j) in table.best) == (row[j] == max(texts) != '–')
    assert sum(int(row[-1]) for row in table.rows[2:]) == 2 * int(table.rows[0][-1])
    assert f'**{table.rows[0][2]}**' in table.markdown()


def test_the_overview_has_a_row_for_each_result(report: Report, work_dirs: list[Path]) -> None:
    table = report.overview()
    assert [row[0] for row in table.rows] == ['first', 'second'] * 3
    segm = read_result(work_dirs[1] / f'results/{SUBSETS[0]}_test.json').segm
    numbers = dict(zip(table.header, table.rows[1], strict=True))
    assert (numbers['trained on'], numbers['tested on']) == (SUBSETS[0], f'{SUBSETS[0]}, test')
    assert (numbers['segm mAP'], numbers['object mAP']) == (f'{segm.mAP:.3f}', f'{segm.per_class["object"].mAP:.3f}')
    assert table.markdown() in markdown(report)


def test_parts_are_the_result_files(report: Report, work_dirs: list[Path]) -> None:
    comparison = report.compared[0]
    result = read_result(work_dirs[0] / f'results/{SUBSETS[0]}_test.json')
    sizes = {row[0]: row for row in size_table(comparison).rows if row[1] == 'first'}
    small = result.segm.per_size['coco']['s']
    assert sizes['small (in pixels)'][2] == f'{small.mAP:.3f}'
    assert sizes['small (in pixels)'][4] == f'{small.per_class["object"]:.3f}'
    densities = density_table(comparison)
    assert {row[0] for row in densities.rows} == {'1-5', '6-10'}
    speed = speed_table(comparison).rows[0]
    assert speed[3] == f'{result.speed.median_ms:.0f} / {result.speed.p95_ms:.0f}'
    assert speed[4] == f'{result.speed.stages["load"].median_ms:.0f} / {result.speed.stages["load"].p95_ms:.0f}'
    (row,) = (row for row in operating_table(comparison).rows if row[:2] == ['object', 'first'])
    best = result.operation['object'].best
    assert row[2:5] == ['this data', f'{best.threshold:.3f}', f'{best.precision:.3f}']
    (row,) = (row for row in pick_table(comparison).rows if row[0] == 'first')
    assert row[1:3] == [f'{result.picks.success_1:.3f}', f'{result.picks.success_3:.3f}']
    for row in error_table(comparison).rows:
        assert sum(map(float, row[2:-1])) == pytest.approx(1, abs=0.002)


def test_the_anatomy_is_the_result_files(report: Report, work_dirs: list[Path]) -> None:
    comparison = report.compared[0]
    anatomy = read_result(work_dirs[1] / f'results/{SUBSETS[0]}_test.json').anatomy
    (row,) = (row for row in cost_table(comparison).rows if row[:2] == ['object', 'second'])
    assert row[2:4] == [f'{anatomy.costs["object"].classification:.3f}', f'{anatomy.costs["object"].localisation:.3f}']
    assert row[-1] == f'{anatomy.lrp["object"].error:.3f}'
    rows = {tuple(row[:2]): row[2:] for row in confusion_table(comparison).rows}
    assert rows['second', 'object'] == [str(count) for count in anatomy.confusion['object'].values()]
    assert rows['second', 'background'][-1] == '–'
    own = [row for row in suspect_table(comparison).rows if row[0] == 'second']
    assert [row[5] for row in own] == [f'{one.score:.3f}' for one in anatomy.suspects]
    assert own


def test_means_under_corruption_are_the_files(report: Report) -> None:
    rows = {tuple(row[:3]): row[3:] for row in corruption_table(report.runs).rows}
    assert len(rows) == 2 * (3 + 2)  # runs; classes and their mean
    assert rows[f'{SUBSETS[0]} test', 'object', 'first'] == ['0.700', '0.400', '0.571']
    assert rows[f'{SUBSETS[2]} test', 'mean', 'second'] == ['0.710', '0.410', '0.577']
    assert '0.571' in html(report)
    assert '0.571' in markdown(report)


def test_rows_of_numbers_have_everything(report: Report, work_dirs: list[Path]) -> None:
    rows = list(csv.DictReader(io.StringIO(comma_separated(report))))
    assert len(rows) == 2 * 3 * 3 * 3  # runs, subsets, IoU types with boundaries, classes and their mean
    row = next(row for row in rows if (row['run'], row['class'], row['iou_type']) == ('second', 'object', 'segm'))
    result = json.loads((work_dirs[1] / f'results/{row["subset"]}_test.json').read_text())
    assert float(row['mAP']) == result['segm']['per_class']['object']['mAP']
    assert float(row['mAP_low']) == result['segm']['confidence']['object']['low']
    assert row['data_fingerprint'] == result['identity']['data_fingerprint']
    assert (row['procedural'], row['comparable'], row['images']) == ('1', '1', '6')


def test_markdown_says_minibench_and_keeps_published_numbers_apart(report: Report) -> None:
    text = markdown(report)
    assert PROCEDURAL in text
    ours, theirs = text.split('## Published numbers')
    assert '0.6971' not in ours
    assert '| first' not in theirs
    assert all(cell in theirs for row in published_table().rows for cell in row)


def test_a_class_that_a_subset_does_not_annotate_is_said(tmp_path: Path) -> None:
    data = write_data(tmp_path / 'data')
    file = data / SUBSETS[2] / 'test.json'
    truth = json.loads(file.read_text())
    truth['annotations'] = [one for one in truth['annotations'] if one['category_id'] == 2]
    file.write_text(json.dumps(truth))
    write_result(tmp_path / 'run', data, SUBSETS[2], MASK_RCNN, 1.0)
    table = gather([tmp_path / 'run']).scores[0]
    assert table.notes[-1] == 'No tote is annotated here: it has no score and no part in the mean.'
    mean, tote, own = (row[2] for row in table.rows)
    assert (mean, tote) == (own, '–')


def test_results_of_one_class_are_shown_beside_those_of_two(data: Path, work_dirs: list[Path], tmp_path: Path) -> None:
    write_result(tmp_path / 'one', data, SUBSETS[0], MASK_RCNN, 1.0, classes=('object',))
    report = gather([tmp_path / 'one', work_dirs[0]])
    assert not [line for line in report.problems if 'left out' in line or 'match table' in line]
    rows = {(row[0], row[1]): row[2:] for row in report.scores[0].rows}
    assert set(rows['tote', 'one']) == {'–'}
    assert rows['object', 'one'] == rows['mean', 'one'] != rows['object', 'first']
    assert 'cannot be compared' in report.answers[0].sentence
    assert {one.kind for one in report.pictures if one.run == 'one'} == set(KINDS)
    assert 'id="size"' in html(report)
    assert '| tote ' in markdown(report)
    written = [row for row in csv.DictReader(io.StringIO(comma_separated(report))) if row['run'] == 'one']
    assert {row['class'] for row in written} == {'mean', 'object'}


SECTIONS = ['answer', 'runs', 'results', 'published', 'training', 'precision-recall', 'operating', 'picks', 'size']
SECTIONS += ['density', 'speed', 'errors', 'anatomy', 'corruptions', 'suspects', 'pictures', 'provenance']


def test_the_page_is_whole_and_needs_nothing_else(page: Path) -> None:
    text = page.read_text()
    own = text[: text.index('<script id="plotly">')]
    assert re.findall(r'<section id="([^"]*)"', own) == SECTIONS
    addresses = re.findall(r'\b(?:src|href)="([^"]{,20})', own)
    assert {one[1:] for one in addresses if one.startswith('#')} == set(SECTIONS)
    assert all(one.startswith(('#', 'data:')) for one in addresses)
    assert not re.search(r'<img (?![^>]*alt="\w)', own)
    assert page.stat().st_size < 12e6
    assert text.count('<script id="plotly">') == 1
    assert 'id="procedural"' in text
    assert PROCEDURAL in text
    assert all(row[-1] in text for row in published_table().rows)
    assert "default-src 'none'" in text


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
