"""Ablations: what is run, what is skipped, and what the table says."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from armbench_mmdet.ablation import BASELINE, TABLE, comparison, load_ablation, read_tables, run_ablation
from armbench_mmdet.configs import load_config
from armbench_mmdet.datasets.release import SUBSETS
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import FOUND, ClassMatches, MatchTable

REPO = Path(__file__).resolve().parents[1]
STUDIES = sorted((REPO / 'configs/shift').glob('*.py'))
FAKE_TOOL = """
import sys
from pathlib import Path
name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
with open({log!r}, 'a') as log:
    log.write(f'{{name}} {{Path(arguments[0]).parent.name}} {{" ".join(arguments[-2:])}}\\n')
if 'broken' in arguments[0]:
    sys.exit(2)
if name == 'test.py':
    folder = Path(arguments[arguments.index('--out') + 1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / {table!r}).write_bytes(Path({source!r}).read_bytes())
"""


def table(found: np.ndarray) -> MatchTable:
    """Of images with one object each: a detection at every one that is found."""
    image = np.flatnonzero(found).astype(np.int32)
    matches = ClassMatches(image, np.full((10, len(image)), FOUND, np.int8), np.ones(len(found), np.int32))
    nothing = ClassMatches(image[:0], np.empty((10, 0), np.int8), np.zeros(len(found), np.int32))
    return MatchTable(np.arange(len(found)), {'tote': nothing, 'object': matches})


def fakes(folder: Path, ingredients: str) -> Callable[..., tuple[list[str], list[str]]]:
    """An ablation whose tools only note how they are called: run it for what fails and what is called."""
    source, log, study = folder / 'table.npz', folder / 'log.txt', folder / 'study.py'
    table(np.ones(40, bool)).save(source)
    for tool in ('train.py', 'test.py'):
        text = FAKE_TOOL.format(log=str(log), table=TABLE.format(subset=SUBSETS[0]), source=str(source))
        (folder / tool).write_text(text)
    base = REPO / 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'
    study.write_text(f'base = {str(base)!r}\ningredients = {ingredients}\n')

    def run(**options: object) -> tuple[list[str], list[str]]:
        log.write_text('')
        failed = run_ablation(study, folder / 'runs', folder / 'results', 2, folder, **options)
        return failed, log.read_text().splitlines()

    return run


@pytest.mark.parametrize('path', STUDIES, ids=[path.stem for path in STUDIES])
def test_ablations_of_the_project_are_whole(path: Path) -> None:
    ablation = load_ablation(path)
    assert (path.parent / ablation.base).is_file()
    if 'final' in ablation.ingredients:
        assert len(ablation.ingredients[BASELINE].seeds) == len(ablation.ingredients['final'].seeds) == 3


@pytest.mark.parametrize('model', ['mask-rcnn', 'mask2former'])
def test_label_fractions_are_nested_and_train_equally_long(model: str) -> None:
    path = REPO / f'configs/shift/{model}_minibench-fractions.py'
    ablation, configs = load_ablation(path), []
    for one in ablation.ingredients.values():
        configs.append(load_config(path.parent / ablation.base))
        configs[-1].merge_from_dict(one.overrides)
    assert [config.train_dataloader.dataset.indices for config in configs] == [400, 40, 20, 4]  # of the same beginning
    assert len({config.train_cfg.max_iters for config in configs}) == 1


def test_gain_over_the_baseline_with_its_interval() -> None:
    few, more = np.arange(200) % 2 == 0, np.arange(200) % 4 != 0
    tables = {BASELINE: [table(few), table(few)], 'better': [table(more), table(more)], 'same': [table(few)]}
    head, _, *rows = comparison(tables, [BASELINE, 'better', 'same', 'not run']).splitlines()
    assert 'object' in head
    assert 'tote' not in head  # none is annotated
    names, _, written, gains = zip(*([cell.strip() for cell in row.split('|')[1:5]] for row in rows), strict=True)
    assert names == (BASELINE, 'better', 'same')
    values = [float(value.split('±')[0]) for value in written]
    assert values == pytest.approx([100 * tables[name][0].ap() for name in names], abs=0.06)
    assert (gains[0], gains[1][-1], gains[2]) == ('–', '*', '+0.0 [+0.0, +0.0]')
    assert float(gains[1].split()[0]) == pytest.approx(values[1] - values[0], abs=0.11)
    del tables[BASELINE]
    assert '| –' in comparison(tables, ['better']), 'there is nothing to compare with yet'


def test_cells_are_run_once_and_failures_are_named(tmp_path: Path) -> None:
    run = fakes(
        tmp_path,
        'dict(baseline=dict(seeds=[0, 1]), broken=dict(overrides=dict(seed_of=1)), '
        "more=dict(weights_of='baseline', test_options=['--tta', '1']), lost=dict(weights_of='broken'))",
    )
    failed, lines = run()
    assert failed == ['broken_seed0']
    cells = [f'{cell} --resume auto' for cell in ('baseline_seed0', 'baseline_seed1', 'broken_seed0')]
    assert sorted(lines[:3]) == [f'train.py {cell}' for cell in cells]
    assert sorted(line.split()[1] for line in lines[3:]) == ['baseline_seed0', 'baseline_seed1', 'more_seed0']
    assert 'test.py more_seed0 --tta 1' in lines
    assert load_config(tmp_path / 'runs/baseline_seed1/config.py').randomness.seed == 1
    assert run() == (['broken_seed0'], ['train.py broken_seed0 --resume auto'])
    shutil.rmtree(tmp_path / 'results/more_seed0')
    lines = ['train.py baseline_seed0 --resume auto', 'test.py more_seed0 --tta 1']
    assert run(only=['more']) == ([], lines), 'whose weights are gone'
    tables = read_tables(tmp_path / 'results')[SUBSETS[0]]
    assert {ingredient: len(own) for ingredient, own in tables.items()} == {BASELINE: 2, 'more': 1}


def test_choosing_tests_the_trained_runs_on_other_data(tmp_path: Path) -> None:
    run = fakes(tmp_path, 'dict(baseline={}, other={})')
    with pytest.raises(InputError, match=r"--only must be of .*got \['others'\]"):
        run(only=['others'])
    with pytest.raises(InputError, match='none has finished yet'):
        read_tables(tmp_path / 'results')
    _, (trained, tested) = run(only=['baseline'], test_root=tmp_path / 'choose')
    assert trained.startswith('train.py baseline_seed0')
    assert tested == f'test.py baseline_seed0 --data-root {tmp_path}/choose'
    assert (tmp_path / 'runs/baseline_seed0/results/choose' / TABLE.format(subset=SUBSETS[0])).is_file()
    assert list(read_tables(tmp_path / 'results')) == [SUBSETS[0]]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('base = (', 'config must load, got SyntaxError'),
        ("base = 'y.py'\ningredients = dict(baseline={})\n", "existing file, got '.*y.py'"),
        ("base = 'x.py'\n", 'ingredients'),
        ("base = 'x.py'\ningredients = dict(other={})\n", "must have one named 'baseline'"),
        ("base = 'x.py'\ningredients = dict(baseline=dict(sedes=[0]))\n", 'sedes'),
        ("base = 'x.py'\ningredients = dict(baseline={}, a=dict(weights_of='b'))\n", "weights_of of 'a'"),
        ("base = 'x.py'\ningredients = dict(baseline={}, a=dict(weights_of='baseline', seeds=[1]))\n", 'weights_of'),
    ],
)
def test_unusable_ablations_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / 'a.py').write_text(text)
    (tmp_path / 'x.py').touch()
    with pytest.raises(InputError, match=message):
        load_ablation(tmp_path / 'a.py')
