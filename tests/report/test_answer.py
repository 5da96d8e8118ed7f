"""What the report opens with: who is better, by how much and how sure; and seeds as one row."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from synthetic_runs import MASK2FORMER, write_run

from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.evaluation.matches import difference_intervals
from armbench_mmdet.report.answer import answer_plot, contenders, headline, seeds_table
from armbench_mmdet.report.collect import shortened
from armbench_mmdet.report.page import Report, gather, markdown


def test_the_better_run_is_named_with_its_lead(report: Report) -> None:
    found = report.answers
    assert [answer.title for answer in found] == [f'{subset}, test' for subset in SUBSETS]
    for answer, comparison in zip(found, report.compared, strict=True):
        gap = difference_intervals(*([entry.evaluation.tables['segm']] for entry in comparison.entries))['object']
        assert answer.winner == ('first' if gap.low > 0 else None)
        verdict = 'first is better than second at' if gap.low > 0 else 'first and second cannot be told apart by'
        assert answer.sentence.startswith(f'{verdict} object masks, AP ')
        assert f'{gap.value:+.3f} (95 % interval {gap.low:.3f}…{gap.high:.3f})' in answer.sentence
    sure = all(answer.winner for answer in found)
    assert headline(found) == ('first is better on every subset.' if sure else '')
    assert [(trace['name'], len(trace['x'])) for trace in answer_plot(found).data] == [('first', 3), ('second', 3)]
    assert found[0].sentence in markdown(report)


def test_runs_that_cannot_be_told_apart_have_no_winner(work_dirs: list[Path], tmp_path: Path) -> None:
    shutil.copytree(work_dirs[0], tmp_path / 'twin')
    same = gather([work_dirs[0], tmp_path / 'twin'])
    assert {answer.winner for answer in same.answers} == {None}
    assert headline(same.answers) == ''


def test_runs_that_differ_by_their_seed_are_one_row(data: Path, report: Report, tmp_path: Path) -> None:
    for seed in (0, 1):
        folder = write_run(tmp_path / f'run_seed-{seed}', data, noise_px=2.0, seed=seed)
        for path in folder.rglob('*.py'):
            config = Config.fromfile(path)
            config.randomness = {'seed': seed}
            config.dump(str(path))
    write_run(tmp_path / 'run_other', data, MASK2FORMER, noise_px=8.0)
    seeds = gather(sorted(tmp_path.iterdir()))
    assert [run.name for run in seeds.runs] == ['other', 'seed-0', 'seed-1']
    assert [*contenders(seeds.compared[0])] == ['other', 'seed-0 (2 seeds)']
    assert 'seed-0 (2 seeds)' in seeds.answers[0].sentence
    table = seeds_table(seeds.compared[0])
    scores = [entry.result.segm.per_class['object'].mAP for entry in contenders(seeds.compared[0])['seed-0 (2 seeds)']]
    (row,) = (row for row in table.rows if row[0] == 'object')
    assert row[2] == f'{np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f}'
    assert table.caption in markdown(seeds)
    assert 'over seeds' not in markdown(report)


@pytest.mark.parametrize(
    ('names', 'short'),
    [
        ('mask-rcnn_r18_minibench mask2former_r18_q30_minibench', 'mask-rcnn mask2former_q30'),
        ('a_b a', 'a_b a'),  # nothing would be left
        ('a_b b_a', 'a_b b_a'),
        ('a_b', 'a_b'),
    ],
)
def test_names_lose_what_all_of_them_have(names: str, short: str) -> None:
    assert shortened(names.split()) == short.split()
