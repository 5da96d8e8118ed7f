"""Ablations: a baseline and its ingredients, trained with several seeds and compared on every subset."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from armbench_mmdet.configs import find_config, load_config
from armbench_mmdet.datasets.release import SUBSETS
from armbench_mmdet.engine.checkpoints import latest_checkpoint
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import Estimate, MatchTable, difference_intervals
from armbench_mmdet.files import write_atomically
from armbench_mmdet.run_folder import RESULTS
from armbench_mmdet.sweep.outputs import config_source
from armbench_mmdet.sweep.workers import training_environment

BASELINE = 'baseline'
TABLE = '{subset}_test.segm.matches.npz'


class Ingredient(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One row of an ablation."""

    overrides: dict[str, Any] = {}  # what differs from the base config, as mmengine merges it
    seeds: tuple[int, ...] = (0,)  # to train with
    weights_of: str | None = None  # another ingredient whose trained weights are tested instead of training
    test_options: list[str] = []  # further options of tools/test.py


class Ablation(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What ``configs/shift/*.py`` say: a base config, relative to the file, and the ingredients by name."""

    base: str
    ingredients: dict[str, Ingredient]

    @property
    def cells(self) -> 'dict[str, Cell]':
        """Every ingredient with each of its seeds, by the name of its folder."""
        return {
            f'{name}_seed{seed}': Cell(one, seed, f'{one.weights_of or name}_seed{seed}')
            for name, one in self.ingredients.items()
            for seed in one.seeds
        }


class Cell(NamedTuple):
    """An ingredient with a seed; ``source`` is the name of the cell whose weights it tests, mostly its own."""

    ingredient: Ingredient
    seed: int
    source: str


def load_ablation(path: Path) -> Ablation:
    """Read an ablation file.

    Raises:
        InputError: It does not load, its base is not there, it has no baseline, or weights asked for are not trained.
    """
    content = {key: value for key, value in load_config(path).to_dict().items() if not key.startswith('_')}
    try:
        ablation = msgspec.convert(content, Ablation)
    except msgspec.ValidationError as error:
        raise InputError(f'an ablation must have base and ingredients: {error} (in {path})') from error
    find_config(path.parent / ablation.base)
    if BASELINE not in ablation.ingredients:
        raise InputError(f'ingredients must have one named {BASELINE!r}, got {list(ablation.ingredients)} (in {path})')
    for name, one in ablation.ingredients.items():
        source = ablation.ingredients.get(one.weights_of or name)
        if source is None or (one.weights_of and (source.weights_of or not set(one.seeds) <= set(source.seeds))):
            raise InputError(
                f'weights_of of {name!r} must be trained with its seeds, got {one.weights_of!r} (in {path})'
            )
    return ablation


def run_ablation(
    path: Path,
    folder: Path,
    results: Path,
    workers: int,
    tools: Path,
    test_root: Path | None = None,
    only: Sequence[str] = (),
) -> list[str]:
    """Train and then test every cell whose tables are not in ``results`` yet; return the names of those that failed.

    Args:
        path: The ablation file.
        folder: Where the runs go; those that were begun are resumed.
        results: Where the match tables go, which :func:`read_tables` reads.
        workers: Trainings or tests at a time; they share the cores.
        tools: Folder of ``train.py`` and ``test.py``.
        test_root: Data root to test on; the trainings' own by default.
        only: Names of the ingredients to run; all by default.

    Raises:
        InputError: See :func:`load_ablation`; or there is no ingredient of a name in ``only``.
    """
    ablation = load_ablation(path)
    cells = ablation.cells
    if unknown := set(only) - set(ablation.ingredients):
        raise InputError(f'--only must be of {list(ablation.ingredients)}, got {sorted(unknown)} (in {path})')
    asked = [cell for cell in cells if not only or cell.rpartition('_seed')[0] in only]
    to_test = [cell for cell in asked if not list((results / cell).glob('*.npz'))]
    sources = dict.fromkeys(cells[cell].source for cell in to_test)
    to_train = [cell for cell in sources if cell in to_test or latest_checkpoint(folder / cell) is None]
    for cell in {*to_test, *to_train}:
        _write_config((path.parent / ablation.base).resolve(), cells[cell], folder / cell)
    failed: list[str] = []

    def run(tool: str, cell: str, *options: object) -> bool:
        if not _succeeds((tools / tool, folder / cell / 'config.py', *options), workers, folder / cell / 'output.txt'):
            failed.append(cell)
        return cell not in failed

    def train(cell: str) -> None:
        run('train.py', cell, '--work-dir', folder / cell, '--resume', 'auto')

    def test(cell: str) -> None:
        ingredient, _, source = cells[cell]
        found = folder / cell / RESULTS / (test_root.name if test_root else '')
        options = ['--subset', 'all', '--out', found, *(['--data-root', test_root] if test_root else [])]
        if source not in failed and run('test.py', cell, folder / source, *options, *ingredient.test_options):
            (results / cell).mkdir(parents=True, exist_ok=True)
            for file in found.glob(TABLE.format(subset='*')):
                shutil.copy(file, results / cell)

    with tqdm(total=len(to_train) + len(to_test), unit='run') as bar, ThreadPoolExecutor(workers) as pool:
        for step, left in ((train, to_train), (test, to_test)):
            for _ in pool.map(step, left):
                bar.update()
    return failed


def _succeeds(command: Sequence[object], workers: int, output: Path) -> bool:
    """Run a Python command as one of some workers, appending what it prints to a file; say where if it fails."""
    environment, words = training_environment(workers, None), [sys.executable, *map(str, command)]
    with output.open('ab') as file:
        done = subprocess.run(words, env=environment, stdout=file, stderr=file, check=False)
    if done.returncode:
        tqdm.write(f'{output.parent.name} failed: see {output}')
    return not done.returncode


def _write_config(base: Path, cell: Cell, folder: Path) -> None:
    """Write a cell's config: the base, and what differs."""
    changes = {**cell.ingredient.overrides, 'randomness': {'seed': cell.seed}}
    text = f'_base_ = {os.path.relpath(base, folder.resolve())!r}\n{config_source(changes)}'
    write_atomically(folder / 'config.py', text)
    load_config(folder / 'config.py')  # a mistake is said before anything runs


def read_tables(results: Path) -> dict[str, dict[str, list[MatchTable]]]:
    """The match tables of the cells in a results folder, which must exist, by subset and ingredient, one a seed."""
    if not results.is_dir():
        raise InputError(f'results must be a folder of tested cells, got {str(results)!r}; none has finished yet')
    tables: dict[str, dict[str, list[MatchTable]]] = {}
    for subset in SUBSETS:
        for file in sorted(results.glob(f'*_seed*/{TABLE.format(subset=subset)}')):
            ingredient = file.parent.name.rpartition('_seed')[0]
            tables.setdefault(subset, {}).setdefault(ingredient, []).append(MatchTable.load(file))
    return tables


def comparison(tables: Mapping[str, Sequence[MatchTable]], order: Sequence[str]) -> str:
    """One subset's table as Markdown: mask mAP of every ingredient and what it gains over the baseline, in percent.

    Scores are mean ± standard deviation over seeds; gains have the 95 % interval over images, seeds resampled as
    clusters, and a star where it excludes 0. Ingredients without tables are left out.
    """
    rows = []
    first = next(iter(tables.values()))[0]
    names = [name for name in first.classes if first.ap(class_name=name) is not None]
    for ingredient in filter(tables.get, order):
        own = tables[ingredient]
        is_compared = ingredient != BASELINE and BASELINE in tables
        gains = difference_intervals(own, tables[BASELINE]) if is_compared else {}
        row = [ingredient, str(len(own))]
        for name in names:
            values = [100 * (one.ap(class_name=name) or 0) for one in own]
            spread = f' ± {np.std(values, ddof=1):.1f}' if len(values) > 1 else ''
            row += [f'{np.mean(values):.1f}{spread}', _percent(gains.get(name))]
        rows.append(row)
    headers = ['ingredient', 'seeds', *(f'{name}{part}' for name in names for part in (' mAP', ' gain'))]
    return tabulate(rows, headers, tablefmt='github', disable_numparse=True)


def _percent(gain: Estimate | None) -> str:
    if gain is None or gain.value is None or gain.low is None or gain.high is None:
        return '–'
    star = ' *' if gain.low > 0 or gain.high < 0 else ''
    return f'{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]{star}'
