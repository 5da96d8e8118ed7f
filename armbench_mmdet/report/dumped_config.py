"""The config a run was trained with, and how it differs from the files it builds on."""

from __future__ import annotations

import ast
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from armbench_mmdet.errors import InputError
from armbench_mmdet.launch.config import load_config

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
