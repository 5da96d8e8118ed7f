"""Config files: found, read, overridden, pointed at the data, walked and compared."""

import argparse
import ast
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.logging import print_log

from armbench_mmdet.errors import InputError, nearest

_OF_CONFIGS = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError,
               RuntimeError, SyntaxError, TypeError, ValueError)  # fmt: skip
"""What a config file may raise: it is code."""

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
ABSENT = '–'


def parse_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Read the ``key=value`` pairs of ``--cfg-options``: mmengine's notation for lists and tuples, Python's for dicts.

    A value in braces is a Python dict, as messages print it; like any dict, it is merged into what the key has.

    Raises:
        InputError: A pair has no ``=``, or a dict does not end.
    """
    bad = [pair for pair in pairs or () if '=' not in pair.lstrip('=')]
    if bad:
        raise InputError(f'--cfg-options must be pairs key=value, got {", ".join(map(repr, bad))}')
    dicts = {key: read_dict(key, text) for key, _, text in (p.partition('=') for p in pairs or ()) if text[:1] == '{'}
    others = [pair for pair in pairs or () if pair.partition('=')[0] not in dicts]
    parser = argparse.ArgumentParser()
    parser.add_argument('--options', nargs='*', action=DictAction, default={})
    return {**parser.parse_args(['--options', *others]).options, **dicts}


def read_dict(name: str, text: str) -> dict[Any, Any]:
    """A dict as Python writes it, from the command line.

    Raises:
        InputError: The text is none.
    """
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{name} must be a dict such as {{'parcel': 'object', 'lid': None}} in quotes, got {text!r}")
    return value


def find_config(config: str | Path) -> Path:
    """The file of a config, given its path or its bare name, with or without ``.py``.

    A name is looked for in ``./configs``, then among the package's own: an installed package holds them in
    ``.mim/configs``, as OpenMMLab's packages do; a checkout has them beside the package.

    Raises:
        InputError: There is none; the message has the nearest name.
    """
    path = Path(config)
    if path.is_file():
        return path
    package = Path(__file__).resolve().parent
    folders = (Path('configs').resolve(), package / '.mim' / 'configs', package.parent / 'configs')
    files = [file for folder in folders for file in sorted(folder.rglob('*.py')) if '_base_' not in file.parts]
    known = {file.name: file for file in reversed(files)}  # the first of a name
    name = path.name if path.suffix == '.py' else f'{path.name}.py'
    if len(path.parts) == 1 and name in known:
        return known[name]
    hint = nearest(name, known, cutoff=0.4)
    raise InputError(f'config must be an existing file, got {str(config)!r}, which no config is named either{hint}')


def load_config(config: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config file, or one by its name, and apply the dotted keys of ``--cfg-options``.

    Raises:
        InputError: The file is missing or does not load (its message says which line or base is at fault).
    """
    path = find_config(config)
    try:
        loaded = Config.fromfile(path)
    except _OF_CONFIGS as error:
        raise InputError(f'config must load, got {type(error).__name__}: {error} (in {path})') from error
    if options:
        _check_new_keys(loaded, options)
        try:
            loaded.merge_from_dict(dict(options))
        except (KeyError, TypeError) as error:
            given = dict(options)
            raise InputError(f'--cfg-options must fit the config, got {given!r}: {error} (in {path})') from error
    return loaded


def _check_new_keys(config: Config, options: Mapping[str, Any]) -> None:
    """Refuse overrides that would create a key beside one of nearly that name, which mmengine does without a word."""
    known = set(dotted_keys(config._cfg_dict))
    misspelt = []
    for key in options:
        new = next((one for one in itertools.accumulate(key.split('.'), '{}.{}'.format) if one not in known), None)
        if new is None:
            continue
        parent, _, name = new.rpartition('.')
        siblings = [last for above, _, last in (one.rpartition('.') for one in known) if above == parent]
        if hint := nearest(name, siblings, cutoff=0.8):
            misspelt.append(f'--cfg-options must name keys of the config, got {key!r}: there is no {new}{hint}')
        else:
            print_log(f'--cfg-options creates the key {key!r}, which the config does not have', level=logging.WARNING)
    if misspelt:
        raise InputError('\n'.join([*misspelt, 'A key that is really new can be set in a config file.']))


def dotted_keys(node: Any, prefix: str = '') -> Iterator[str]:
    """Yield the dotted name of every dict entry and list index below ``node``."""
    items = node if isinstance(node, Mapping) else dict(enumerate(node)) if isinstance(node, list | tuple) else {}
    for key, value in items.items():
        yield f'{prefix}{key}'
        yield from dotted_keys(value, f'{prefix}{key}.')


def dataset_of(config: Config, loader: str) -> ConfigDict:
    """The data set settings of a loader.

    Raises:
        InputError: The config has no such loader, or that has none.
    """
    given = config.get(loader)
    dataset = given.get('dataset') if isinstance(given, Mapping) else None
    if not isinstance(dataset, Mapping):
        raise InputError(f'{loader} must be a dict with a dataset, got {given!r} (in {config.filename})')
    return dataset


def datasets(config: Config) -> Iterator[ConfigDict]:
    """Yield the data set settings of each loader, those inside wrappers such as ``RepeatDataset`` included."""
    for name in LOADERS:
        if config.get(name):
            yield from unwrapped(dataset_of(config, name))


def training_subsets(config: Config) -> str:
    """The subsets a config trains on, by name, several joined by `` + ``; of files of one's own, the folder's name."""
    names = []
    for one in unwrapped(dataset_of(config, 'train_dataloader')):
        ann_file = one.get('ann_file')
        folder = Path(one.get('data_root') or '', ann_file).absolute().parent.name if ann_file else None
        names.append(folder or one.get('subset', '?'))
    return ' + '.join(dict.fromkeys(names))


def nested(dataset: ConfigDict) -> Iterator[ConfigDict]:
    """Yield the settings of a data set, and of those inside it where it is a wrapper; what is no dict is left out."""
    if not isinstance(dataset, Mapping):
        return
    yield dataset
    inner = dataset.get('dataset', dataset.get('datasets', ()))
    for one in inner if isinstance(inner, (list, tuple)) else [inner]:
        yield from nested(one)


def unwrapped(dataset: ConfigDict) -> Iterator[ConfigDict]:
    """Yield the settings of the data sets inside wrappers, or those given."""
    return (one for one in nested(dataset) if 'dataset' not in one and 'datasets' not in one)


def set_data_root(config: Config, data_root: str | Path) -> None:
    """Point every loader at ``data_root``, the folder that holds the subsets' folders.

    Raises:
        InputError: A loader has no data set, or joins several folders, which would all be the same then.
    """
    for name in LOADERS:
        inner = list(unwrapped(dataset_of(config, name))) if config.get(name) else []
        roots = {str(dataset.get('data_root')) for dataset in inner}
        if len(roots) > 1:
            raise InputError(
                f'--data-root must be left out where {name} joins several folders, {", ".join(sorted(roots))} '
                f'(in {config.filename}); change them there'
            )
        for dataset in inner:
            dataset['data_root'] = str(data_root)


def set_work_dir(config: Config, work_dir: str | Path | None) -> Path:
    """Set and return the run's folder: the argument, else the config's, else ``work_dirs/<config name>``."""
    chosen = work_dir or config.get('work_dir') or Path('work_dirs') / Path(config.filename).stem
    config.work_dir = str(chosen)
    return Path(chosen)


class Difference(NamedTuple):
    """A key that the run has otherwise than the base; ``–`` where one of them does not have it."""

    key: str
    base: str
    run: str


def dumped_config(work_dir: Path) -> tuple[Config | None, list[str]]:
    """The resolved config that mmengine wrote when training began, or None; and what is wrong, a line each."""
    problems = []
    for path in (*sorted(work_dir.glob('*.py')), *sorted(work_dir.glob('*/vis_data/config.py'), reverse=True)):
        try:
            config = load_config(path)
        except InputError as error:
            problems.append(str(error))
            continue
        if config.get('train_cfg') and config.get('train_dataloader'):  # else of a test
            return config, []
    return None, problems[:1] or [f'no resolved config of its training (in {work_dir})']


def differences(base: Mapping[str, Any], run: Mapping[str, Any]) -> list[Difference]:
    """Where two configs differ, by key; 1 is not 1.0."""
    old, new = leaves(base), leaves(run)
    return [
        Difference(key, old.get(key, ABSENT), new.get(key, ABSENT))
        for key in {**new, **old}
        if old.get(key) != new.get(key)
    ]


def leaves(node: Any, prefix: str = '') -> dict[str, str]:
    """The values of a config by their dotted keys, as they are written; a list without dicts is one."""
    items: Mapping[Any, Any] = node if isinstance(node, Mapping) else {}
    if isinstance(node, list | tuple) and any(isinstance(one, Mapping) for one in node):
        items = dict(enumerate(node))
    found = {} if items or not prefix else {prefix.removesuffix('.'): _plain(node)}
    for name, value in items.items():
        found |= leaves(value, f'{prefix}{name}.')
    return found


def _plain(value: Any) -> str:
    """The value as it is written in a config; what mmengine wraps and what it dumps look the same."""
    if isinstance(value, Mapping):
        return 'dict(' + ', '.join(f'{key}={_plain(one)}' for key, one in sorted(value.items())) + ')'
    if isinstance(value, list | tuple):
        inner = ', '.join(map(_plain, value))
        comma = ',' if len(value) == 1 else ''
        return f'[{inner}]' if isinstance(value, list) else f'({inner}{comma})'
    return repr(value)
