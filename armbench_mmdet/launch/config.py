"""Config files made ready to run: read, overridden from the command line, pointed at the data."""

from __future__ import annotations

import argparse
import difflib
import logging
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
