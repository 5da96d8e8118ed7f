"""What the report opens with: who is better, by how much and how sure; and seeds as one row."""

import shutil
from pathlib import Path

import pytest
from mmengine.config import Config
from synthetic_runs import MASK2FORMER, write_run

from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.evaluation.matches import difference_intervals
from armbench_mmdet.report.answer import answer_plot, answers, contenders, headline, seeds_table
from armbench_mmdet.report.collect import shortened
from armbench_mmdet.report.page import Report, gather, html, markdown


def test_the_better_run_is_named_with_its_lead(report: Report) -> None:
    found = report.answers
    assert [answer.title for answer in found] == [f'{subset}, test' for subset in SUBSETS]
    for answer, comparison in zip(found, report.compared, strict=True):
        tables = [[entry.evaluation.tables['segm']] for entry in comparison.entries]
        gap = difference_intervals(*tables)['object']
        assert (answer.winner == 'first') is (gap.low > 0)
        assert f'{gap.value:+.3f} (95 % interval {gap.low:.3f}…{gap.high:.3f})' in answer.sentence
        verdict = 'first is better than second at' if gap.low > 0 else 'first and second cannot be told apart by'
        assert answer.sentence.startswith(f'{verdict} object masks, AP ')
    sure = all(answer.winner for answer in found)
    assert headline(found) == ('first is better on every subset.' if sure else '')
    plot = answer_plot(found)
    assert [trace['name'] for trace in plot.data] == ['first', 'second']
    assert [len(trace['x']) for trace in plot.data] == [3, 3]
    assert found[0].sentence in markdown(report)
    assert html(report).index('id="answer"') < html(report).index('id="runs"')


def test_runs_that_cannot_be_told_apart_have_no_winner(work_dirs: list[Path], tmp_path: Path) -> None:
    shutil.copytree(work_dirs[0], tmp_path / 'twin')
    same = gather([work_dirs[0], tmp_path / 'twin'])
    assert all(answer.winner is None for answer in same.answers)
    assert headline(same.answers) == ''


@pytest.fixture(scope='module')
def seeds(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Two runs of one config, and one of another."""
    root = tmp_path_factory.mktemp('seeds')
    for seed in (0, 1):
        folder = write_run(root / f'run_seed-{seed}', data, noise_px=2.0, seed=seed)
        for path in folder.rglob('*.py'):
            config = Config.fromfile(path)
            config.randomness = {'seed': seed}
            config.dump(str(path))
    write_run(root / 'run_other', data, MASK2FORMER, noise_px=8.0)
    return gather(sorted(root.iterdir()))


def test_runs_that_differ_by_their_seed_are_one_row(seeds: Report, report: Report) -> None:
    comparison = seeds.compared[0]
    assert [run.name for run in seeds.runs] == ['other', 'seed-0', 'seed-1']
    other, both = sorted(contenders(comparison), key=lambda one: len(one.entries))
    assert other.name != both.name
    assert both.name.endswith(' (2 seeds)')
    table = seeds_table(comparison)
    scores = [entry.result.segm.per_class['object'].mAP for entry in both.entries]
    (row,) = (row for row in table.rows if row[0] == 'object')
    mean, spread = sum(scores) / 2, abs(scores[0] - scores[1]) / 2**0.5
    assert row[2] == f'{mean:.3f} ± {spread:.3f}'
    assert table.caption in markdown(seeds)
    assert both.name in answers(seeds.compared)[0].sentence
    assert 'over seeds' not in markdown(report)


@pytest.mark.parametrize(
    ('names', 'short'),
    [
        (['mask-rcnn_r18_minibench', 'mask2former_r18_q30_minibench'], ['mask-rcnn', 'mask2former_q30']),
        (['a_b', 'a'], ['a_b', 'a']),
        (['a_b', 'b_a'], ['a_b', 'b_a']),
        (['a_b'], ['a_b']),
    ],
)
def test_names_lose_what_all_of_them_have(names: list[str], short: list[str]) -> None:
    assert shortened(names) == short
