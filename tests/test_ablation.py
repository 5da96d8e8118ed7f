"""Ablations: what is run, what is skipped, and what the table says."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope

from armbench_mmdet.ablation import BASELINE, TABLE, comparison, load_ablation, read_tables, run_ablation
from armbench_mmdet.configs import load_config, set_data_root
from armbench_mmdet.datasets.release import SUBSETS
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import FOUND, ClassMatches, MatchTable

REPO = Path(__file__).resolve().parents[1]
STUDIES = sorted((REPO / 'configs/shift').glob('*.py'))
FAKE_TOOL = """
import sys
import shutil
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


def ablation_of_fakes(folder: Path, ingredients: str) -> tuple[Path, Path]:
    """An ablation file beside tools that only note how they are called, and the log in which they do."""
    source, log, study = folder / 'table.npz', folder / 'log.txt', folder / 'study.py'
    table(np.ones(40, bool)).save(source)
    for tool in ('train.py', 'test.py'):
        text = FAKE_TOOL.format(log=str(log), table=TABLE.format(subset=SUBSETS[0]), source=str(source))
        (folder / tool).write_text(text)
    base = REPO / 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'
    study.write_text(f'base = {str(base)!r}\ningredients = {ingredients}\n')
    return study, log


@pytest.mark.parametrize('path', STUDIES, ids=[path.stem for path in STUDIES])
def test_ablations_of_the_project_are_whole(path: Path) -> None:
    ablation = load_ablation(path)
    assert (path.parent / ablation.base).is_file()
    if 'final' in ablation.ingredients:
        assert len(ablation.ingredients[BASELINE].seeds) == len(ablation.ingredients['final'].seeds) == 3


@pytest.mark.parametrize('model', ['mask-rcnn', 'mask2former'])
def test_label_fractions_are_nested_and_train_equally_long(model: str, minibench_root: Path) -> None:
    path = REPO / f'configs/shift/{model}_minibench-fractions.py'
    ablation = load_ablation(path)
    parts, iterations, counts = [], set(), []
    for one in ablation.ingredients.values():
        config = load_config(path.parent / ablation.base)
        config.merge_from_dict(one.overrides)
        set_data_root(config, minibench_root)
        iterations.add(config.train_cfg.max_iters)
        counts.append(config.train_dataloader.dataset.indices)
        init_default_scope(config.default_scope)
        dataset = DATASETS.build(config.train_dataloader.dataset)
        parts.append({dataset.get_data_info(i)['img_id'] for i in range(len(dataset))})
    assert counts == [400, 40, 20, 4]
    assert parts[0] >= parts[1] >= parts[2] > parts[3]
    assert len(parts[3]) == 4
    assert len(iterations) == 1


def test_gain_over_the_baseline_with_its_interval() -> None:
    few, more = np.arange(200) % 2 == 0, np.arange(200) % 4 != 0
    tables = {BASELINE: [table(few), table(few)], 'better': [table(more), table(more)], 'same': [table(few)]}
    head, _, *rows = comparison(tables, [BASELINE, 'better', 'same', 'not run']).splitlines()
    assert 'object' in head
    assert 'tote' not in head  # none is annotated
    assert [row.split('|')[1].strip() for row in rows] == [BASELINE, 'better', 'same']
    values = [float(row.split('|')[3].split('±')[0]) for row in rows]
    assert values[0] == pytest.approx(100 * tables[BASELINE][0].ap(), abs=0.06)
    assert values[1] == pytest.approx(100 * tables['better'][0].ap(), abs=0.06)
    gains = [row.split('|')[4].strip() for row in rows]
    assert gains[0] == '–'
    assert gains[1].endswith('*')
    assert float(gains[1].split()[0]) == pytest.approx(values[1] - values[0], abs=0.11)
    assert gains[2] == '+0.0 [+0.0, +0.0]'
    del tables[BASELINE]
    assert '| –' in comparison(tables, ['better']), 'there is nothing to compare with yet'


def test_cells_are_run_once_and_failures_are_named(tmp_path: Path) -> None:
    study, log = ablation_of_fakes(
        tmp_path,
        'dict(baseline=dict(seeds=[0, 1]), broken=dict(overrides=dict(seed_of=1)), '
        "more=dict(weights_of='baseline', test_options=['--tta', '1']), lost=dict(weights_of='broken'))",
    )

    def called(failed: list[str], **options: list[str]) -> list[str]:
        """Which tools are called, and of which cells."""
        log.write_text('')
        assert run_ablation(study, tmp_path / 'runs', tmp_path / 'results', 2, tmp_path, **options) == failed
        return [' '.join(line.split()[:2]) for line in log.read_text().splitlines()]

    lines = called(['broken_seed0'])
    assert sorted(lines[:3]) == ['train.py baseline_seed0', 'train.py baseline_seed1', 'train.py broken_seed0']
    assert sorted(lines[3:]) == ['test.py baseline_seed0', 'test.py baseline_seed1', 'test.py more_seed0']
    assert 'test.py more_seed0 --tta 1' in log.read_text()
    config = load_config(tmp_path / 'runs/baseline_seed1/config.py')
    assert config.randomness.seed == 1
    assert called(['broken_seed0']) == ['train.py broken_seed0']
    assert '--resume auto' in log.read_text()
    shutil.rmtree(tmp_path / 'results/more_seed0')
    assert called([], only=['more']) == ['train.py baseline_seed0', 'test.py more_seed0'], 'whose weights are gone'
    tables = read_tables(tmp_path / 'results')[SUBSETS[0]]
    assert {ingredient: len(own) for ingredient, own in tables.items()} == {BASELINE: 2, 'more': 1}


def test_choosing_tests_the_trained_runs_on_other_data(tmp_path: Path) -> None:
    study, log = ablation_of_fakes(tmp_path, 'dict(baseline={}, other={})')
    chosen = tmp_path / 'choose'
    arguments = study, tmp_path / 'runs', tmp_path / 'chosen', 1, tmp_path, chosen
    assert not run_ablation(*arguments, only=['baseline'])
    assert 'other' not in log.read_text()
    with pytest.raises(InputError, match=r"--only must be of .*got \['others'\]"):
        run_ablation(*arguments, only=['others'])
    assert log.read_text().splitlines()[-1].endswith(f'--data-root {chosen}')
    assert (tmp_path / 'runs/baseline_seed0/results/choose' / TABLE.format(subset=SUBSETS[0])).is_file()
    assert list(read_tables(tmp_path / 'chosen')) == [SUBSETS[0]]
    with pytest.raises(InputError, match='none has finished yet'):
        read_tables(tmp_path / 'results')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ("base = 'x.py'\n", 'ingredients'),
        ("base = 'x.py'\ningredients = dict(other={})\n", "must have one named 'baseline'"),
        ("base = 'x.py'\ningredients = dict(baseline=dict(sedes=[0]))\n", 'sedes'),
        ("base = 'x.py'\ningredients = dict(baseline={}, a=dict(weights_of='b'))\n", "weights_of of 'a'"),
        ("base = 'x.py'\ningredients = dict(baseline={}, a=dict(weights_of='baseline', seeds=[1]))\n", 'weights_of'),
    ],
)
def test_unusable_ablations_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / 'a.py').write_text(text)
    with pytest.raises(InputError, match=message):
        load_ablation(tmp_path / 'a.py')
