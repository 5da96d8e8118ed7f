"""Config files: read, overridden, pointed at the data, walked and compared."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.logging import print_log

from armbench_mmdet.errors import InputError

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def parse_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Read the ``key=value`` pairs of ``--cfg-options``, with mmengine's notation for lists and tuples.

    Raises:
        InputError: A pair has no ``=``.
    """
    bad = [pair for pair in pairs or () if '=' not in pair.strip('=')]
    if bad:
        raise InputError(f'--cfg-options must be pairs key=value, got {", ".join(map(repr, bad))}')
    parser = argparse.ArgumentParser()
    parser.add_argument('--options', nargs='*', action=DictAction, default={})
    return parser.parse_args(['--options', *pairs]).options if pairs else {}


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config file and apply ``--cfg-options``.

    Args:
        path: The config file.
        options: Dotted keys and their new values.

    Returns:
        The resolved config.

    Raises:
        InputError: The file is missing or does not load (its message says which line or base is at fault).
    """
    file = Path(path)
    if not file.is_file():
        near = difflib.get_close_matches(file.name, [p.name for p in Path('configs').rglob('*.py')], n=1, cutoff=0.4)
        hint = f'; did you mean {_find_config(near[0])}?' if near else ''
        raise InputError(f'config must be an existing file, got {str(path)!r}{hint}')
    try:
        config = Config.fromfile(file)
    except (SyntaxError, OSError, KeyError, TypeError, ImportError, AttributeError, RuntimeError, NameError) as error:
        raise InputError(f'config must load, got {type(error).__name__}: {error} (in {path})') from error
    if options:
        _warn_unknown(config, options)
        try:
            config.merge_from_dict(dict(options))
        except (KeyError, TypeError) as error:
            given = dict(options)
            raise InputError(f'--cfg-options must fit the config, got {given!r}: {error} (in {path})') from error
    return config


def _find_config(name: str) -> Path:
    return next(Path('configs').rglob(name))


def _warn_unknown(config: Config, options: Mapping[str, Any]) -> None:
    """Say which overrides create a key: mmengine accepts a misspelt key without a word."""
    known = set(dotted_keys(config._cfg_dict))
    for key in options:
        if key in known:
            continue
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        hint = f'; did you mean {near[0]}?' if near else ''
        print_log(f'--cfg-options creates the key {key!r}, which the config does not have{hint}', level=logging.WARNING)


def dotted_keys(node: Any, prefix: str = '') -> Iterator[str]:
    """Yield the dotted name of every dict entry and list index below ``node``."""
    if isinstance(node, Mapping):
        items = [(str(key), value) for key, value in node.items()]
    elif isinstance(node, (list, tuple)):
        items = [(str(index), value) for index, value in enumerate(node)]
    else:
        return
    for key, value in items:
        yield prefix + key
        yield from dotted_keys(value, f'{prefix}{key}.')


def datasets(config: Config) -> Iterator[ConfigDict]:
    """Yield the data set settings of each loader, those inside wrappers such as ``RepeatDataset`` included."""
    for name in _LOADERS:
        loader = config.get(name)
        if loader is not None:
            yield from _unwrap(loader['dataset'])


def training_subsets(config: Config) -> str:
    """The subsets a config trains on, by name, several joined by `` + ``."""
    names = [dataset.get('subset', '?') for dataset in _unwrap(config.train_dataloader['dataset'])]
    return ' + '.join(dict.fromkeys(names))


def _unwrap(dataset: ConfigDict) -> Iterator[ConfigDict]:
    inner = dataset.get('dataset', dataset.get('datasets'))
    if inner is None:
        yield dataset
        return
    for one in inner if isinstance(inner, (list, tuple)) else [inner]:
        yield from _unwrap(one)


def set_data_root(config: Config, data_root: str | Path) -> None:
    """Point every loader at ``data_root``, the folder that holds the subsets' folders."""
    for dataset in datasets(config):
        dataset['data_root'] = str(data_root)


def set_work_dir(config: Config, work_dir: str | Path | None) -> Path:
    """Set and return the run's folder: the argument, else the config's, else ``work_dirs/<config name>``."""
    chosen = work_dir or config.get('work_dir') or Path('work_dirs') / Path(config.filename).stem
    config.work_dir = str(chosen)
    return Path(chosen)


ABSENT = '–'


@dataclasses.dataclass(frozen=True)
class Difference:
    """A key that the run has otherwise than the base; ``–`` where one of them does not have it."""

    key: str
    base: str
    run: str


def dumped_config(work_dir: Path, stem: str | None) -> tuple[Config | None, list[str]]:
    """The resolved config that mmengine wrote when training began.

    Every runner writes its config over ``<work_dir>/<stem>.py``, and one that only tests has no training in it; the
    copy beside each attempt's curves has.

    Args:
        work_dir: The run's folder.
        stem: Name of the config without ``.py``; None for any that lies there.

    Returns:
        The config, or None; and what is wrong, a line each.
    """
    beside_curves = sorted(work_dir.glob('*/vis_data/config.py'), reverse=True)
    problems = []
    for path in (*sorted(work_dir.glob(f'{stem or "*"}.py')), *beside_curves):
        try:
            config = load_config(path)
        except InputError as error:
            problems.append(str(error))
            continue
        if config.get('train_cfg') and config.get('train_dataloader'):
            return config, []
    return None, problems[:1] or [f'no resolved config of its training (in {work_dir})']


def differences_from_base(leaf: str | Path, resolved: Config) -> list[Difference]:
    """Where a resolved config differs from the files its leaf builds on: the leaf's own text and the command line's.

    Args:
        leaf: The config file, as it is now.
        resolved: The config that ran.

    Returns:
        By key; top-level helper variables, which nothing reads, included.

    Raises:
        InputError: The leaf or one of its bases is not there, or builds on nothing.
    """
    base, run = (dict(_leaves(config._cfg_dict, '')) for config in (_bases(Path(leaf)), resolved))
    return [
        Difference(key, _beside(base, run, key), _beside(run, base, key))
        for key in dict.fromkeys((*run, *base))
        if key not in base or key not in run or _plain(base[key]) != _plain(run[key])
    ]


def _beside(own: Mapping[str, Any], other: Mapping[str, Any], key: str) -> str:
    """A value as text; of a list beside a list only what the other does not have, if that tells them apart."""
    if key not in own:
        return ABSENT
    value, opposite = own[key], other.get(key)
    if isinstance(value, list) and isinstance(opposite, list):
        mine, theirs = ([_plain(item) for item in items] for items in (value, opposite))
        if set(mine) != set(theirs):
            unlike = [item for item in mine if item not in theirs]
            return '[' + ', '.join([*unlike, *['…'] * (len(unlike) < len(mine))]) + ']'
    return _plain(value)


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def _plain(value: Any) -> str:
    """The value as it is written in a config; what mmengine wraps and what it dumps look the same."""
    if isinstance(value, Mapping):
        return 'dict(' + ', '.join(f'{key}={_plain(one)}' for key, one in sorted(value.items())) + ')'
    if isinstance(value, list | tuple):
        inner = ', '.join(map(_plain, value))
        return f'[{inner}]' if isinstance(value, list) else f'({inner})'
    return repr(value)


def _bases(leaf: Path) -> Config:
    """What the leaf's ``_base_`` gives without the leaf."""
    try:
        tree = ast.parse(leaf.read_text())
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f'config must be a readable file, got {error} (in {leaf})') from error
    named = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', None) == '_base_'
    ]
    if not named:
        raise InputError(f'config must build on others by _base_ to be compared with them (in {leaf})')
    bases = [named[0]] if isinstance(named[0], str) else list(named[0])
    paths = [base if '::' in base else str((leaf.parent / base).resolve()) for base in bases]
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / 'bases.py'
        alone.write_text(f'_base_ = {paths!r}\n')
        return load_config(alone)
