"""Ablations: a baseline and its ingredients, trained with several seeds and compared on every subset."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from mmengine.config import Config
from tabulate import tabulate
from tqdm import tqdm

from armbench_mmdet.configs import load_config
from armbench_mmdet.datasets.release import SUBSETS
from armbench_mmdet.engine.checkpoints import latest_checkpoint
from armbench_mmdet.errors import InputError
from armbench_mmdet.evaluation.matches import MatchTable, difference_intervals
from armbench_mmdet.files import write_atomically
from armbench_mmdet.run_folder import RESULTS
from armbench_mmdet.sweep.overrides import config_source
from armbench_mmdet.sweep.workers import training_environment

BASELINE = 'baseline'
TABLE = '{subset}_test.segm.matches.npz'


class Ingredient(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One row of an ablation.

    Attributes:
        overrides: What differs from the base config, in mmengine's form: dicts are merged, lists replaced.
        seeds: Seeds to train with.
        weights_of: Another ingredient whose trained weights are tested instead of training.
        test_options: Further options of ``tools/test.py``.
    """

    overrides: dict[str, Any] = {}
    seeds: tuple[int, ...] = (0,)
    weights_of: str | None = None
    test_options: list[str] = []


class Ablation(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What ``configs/shift/*.py`` say: a base config, relative to the file, and the ingredients by name."""

    base: str
    ingredients: dict[str, Ingredient]


class Cell(NamedTuple):
    """An ingredient and a seed."""

    ingredient: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f'{self.ingredient}_seed{self.seed}'


def load_ablation(path: Path) -> Ablation:
    """Read an ablation file.

    Raises:
        InputError: It is not one, has no baseline, or an ingredient asks for weights that are not trained.
    """
    content = {key: value for key, value in Config.fromfile(path).to_dict().items() if not key.startswith('_')}
    try:
        ablation = msgspec.convert(content, Ablation)
    except msgspec.ValidationError as error:
        raise InputError(f'an ablation must have base and ingredients: {error} (in {path})') from error
    if BASELINE not in ablation.ingredients:
        raise InputError(f'ingredients must have one named {BASELINE!r}, got {list(ablation.ingredients)} (in {path})')
    for name, one in ablation.ingredients.items():
        source = ablation.ingredients.get(one.weights_of or name)
        if source is None or (one.weights_of and (source.weights_of or not set(one.seeds) <= set(source.seeds))):
            raise InputError(
                f'weights_of of {name!r} must be an ingredient trained with its seeds, got {one.weights_of!r} '
                f'(in {path})'
            )
    return ablation


def cells(ablation: Ablation) -> Iterator[Cell]:
    """Every ingredient with each of its seeds."""
    for name, one in ablation.ingredients.items():
        yield from (Cell(name, seed) for seed in one.seeds)


def run_ablation(
    path: Path,
    folder: Path,
    results: Path,
    workers: int,
    tools: Path,
    test_root: Path | None = None,
    only: Sequence[str] = (),
) -> list[str]:
    """Train and test every cell whose tables are not in ``results`` yet.

    Args:
        path: The ablation file.
        folder: Where the runs go; those that were begun are resumed.
        results: Where the small files go that :func:`comparison` reads; a finished cell is not run again.
        workers: Cells at a time; they share the cores.
        tools: Folder of ``train.py`` and ``test.py``.
        test_root: Data root to test on; the trainings' own by default.
        only: Names of the ingredients to run; all by default.

    Returns:
        The names of the cells that failed.

    Raises:
        InputError: See :func:`load_ablation`; or there is no ingredient of a name in ``only``.
    """
    ablation = load_ablation(path)
    if unknown := set(only) - set(ablation.ingredients):
        raise InputError(f'--only must be of {list(ablation.ingredients)}, got {sorted(unknown)} (in {path})')
    environment = training_environment(workers, None)
    failed: list[str] = []

    def run(cell: Cell) -> None:
        ingredient = ablation.ingredients[cell.ingredient]
        own, config = folder / cell.name, _write_config(path, ablation, cell, folder)
        source = folder / Cell(ingredient.weights_of, cell.seed).name if ingredient.weights_of else own
        root = ['--data-root', test_root] if test_root else []
        found = own / RESULTS / (test_root.name if test_root else '')
        train: list[object] = ['train.py', config, '--work-dir', own, '--resume', 'auto']
        test = ['test.py', config, source, '--subset', 'all', '--out', found, *root, *ingredient.test_options]
        with (own / 'output.txt').open('ab') as output:
            for tool, *arguments in [test] if ingredient.weights_of else [train, test]:
                command = [sys.executable, str(tools / str(tool)), *map(str, arguments)]
                if subprocess.run(command, env=environment, stdout=output, stderr=output, check=False).returncode:
                    failed.append(cell.name)
                    tqdm.write(f'{cell.name} failed: see {own / "output.txt"}')
                    return
        for file in found.glob(TABLE.format(subset='*')):
            (results / cell.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, results / cell.name)

    every, left = _left(ablation, folder, results, only)
    with tqdm(total=len(every), initial=len(every) - len(left), desc='cells', unit='cell') as bar:
        for borrows in (False, True):  # what needs another's weights comes after them
            chosen = [cell for cell in left if bool(ablation.ingredients[cell.ingredient].weights_of) == borrows]
            with ThreadPoolExecutor(workers) as pool:
                for _ in pool.map(run, chosen):
                    bar.update()
    return failed


def _left(ablation: Ablation, folder: Path, results: Path, only: Sequence[str]) -> tuple[set[Cell], list[Cell]]:
    """The cells that are asked for, and those left to run: also ones whose weights are borrowed and gone."""
    every = [cell for cell in cells(ablation) if not only or cell.ingredient in only]
    left = [cell for cell in every if not list((results / cell.name).glob('*.npz'))]
    borrowed = [(ablation.ingredients[cell.ingredient].weights_of, cell.seed) for cell in left]
    lent = {Cell(source, seed) for source, seed in borrowed if source}.difference(left)
    left += sorted(cell for cell in lent if latest_checkpoint(folder / cell.name) is None)
    return {*every, *left}, left


def _write_config(path: Path, ablation: Ablation, cell: Cell, folder: Path) -> Path:
    """Write a cell's config: the base, and what differs."""
    own = folder / cell.name
    own.mkdir(parents=True, exist_ok=True)
    base = os.path.relpath((path.parent / ablation.base).resolve(), own.resolve())
    changes = {**ablation.ingredients[cell.ingredient].overrides, 'randomness': {'seed': cell.seed}}
    config = own / 'config.py'
    write_atomically(config, f'_base_ = {base!r}\n{config_source(changes)}')
    load_config(config)  # a mistake is said before anything runs
    return config


def read_tables(results: Path) -> dict[str, dict[str, list[MatchTable]]]:
    """The match tables of the cells in a results folder, by subset and ingredient, a table for each seed.

    Raises:
        InputError: There is no such folder.
    """
    if not results.is_dir():
        raise InputError(f'results must be a folder of tested cells, got {str(results)!r}; none has finished yet')
    tables: dict[str, dict[str, list[MatchTable]]] = {}
    for folder in sorted(results.iterdir()):
        name = re.fullmatch(r'(.+)_seed\d+', folder.name)
        for subset in SUBSETS if name else ():
            file = folder / TABLE.format(subset=subset)
            if name and file.is_file():
                tables.setdefault(subset, {}).setdefault(name[1], []).append(MatchTable.load(file))
    return tables


def comparison(tables: Mapping[str, Sequence[MatchTable]], order: Sequence[str]) -> str:
    """One subset's table: mask mAP of every ingredient and what it gains over the baseline.

    Args:
        tables: By ingredient, a match table for each seed.
        order: The ingredients in the order of the rows; those without tables are left out.

    Returns:
        Markdown. Scores are in percent, mean ± standard deviation over seeds; gains have the 95 % interval over images,
        seeds resampled as clusters, and a star where it excludes 0.
    """
    rows = []
    first = next(iter(tables.values()))[0]
    names = [name for name in first.classes if first.ap(class_name=name) is not None]
    for ingredient in order:
        own = tables.get(ingredient)
        if not own:
            continue
        row = [ingredient, str(len(own))]
        is_compared = ingredient != BASELINE and BASELINE in tables
        gains = difference_intervals(own, tables[BASELINE]) if is_compared else {}
        for name in names:
            values = [100 * (one.ap(class_name=name) or 0) for one in own]
            spread = f' ± {np.std(values, ddof=1):.1f}' if len(values) > 1 else ''
            row.append(f'{np.mean(values):.1f}{spread}')
            gain = gains.get(name)
            if gain is None or gain.value is None or gain.low is None or gain.high is None:
                row.append('–')
            else:
                star = ' *' if gain.low > 0 or gain.high < 0 else ''
                row.append(f'{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]{star}')
        rows.append(row)
    headers = ['ingredient', 'seeds', *(f'{name}{part}' for name in names for part in (' mAP', ' gain'))]
    return tabulate(rows, headers, tablefmt='github', disable_numparse=True)
