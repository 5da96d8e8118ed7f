"""Trials as override files."""

import functools
import inspect
import pprint
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mmengine.runner import Runner

from armbench_mmdet.configs import Difference, differences, dotted_keys, load_config
from armbench_mmdet.errors import InputError, nearest
from armbench_mmdet.files import write_atomically

KeyPath = tuple[str | int, ...]
Assignment = tuple[KeyPath, Any]

BASE = 'base.py'
DELETE = '_delete_'
# What a run reads. Other names at the top of a config are values that it computes others from, such as max_iters.
_READ = {*inspect.signature(Runner.__init__).parameters, 'auto_scale_lr', 'runner_type', 'custom_imports'} - {'self'}


def find(config: Mapping[str, Any], key: str) -> list[KeyPath]:
    """Return where ``key`` is in a resolved config.

    Args:
        config: The resolved config.
        key: Names joined by dots. A name may itself contain dots (``custom_keys.backbone.norm.lr_mult``) or stars
            (``backbone*``). An item of a list is named by its index, or by its ``type`` if no other item has that
            type (``pipeline.LazyRandomFlip.prob``).

    Returns:
        The path of each match: one, unless the key has stars.

    Raises:
        InputError: There is none (the message has the nearest names), there are several, or the run does not read it.
    """
    paths = list(_matches(config, key.split('.')))
    if not paths:
        hint = nearest(key, dotted_keys(config))
        raise InputError(f'key must be one of the base config, got {key!r}{hint}')
    if len(paths) > 1 and '*' not in key:
        raise InputError(f'key must name one setting, got {key!r}, which names {paths}')
    if str(paths[0][0]) not in _READ:
        raise InputError(
            f'key must name a setting that the run reads, got {key!r}: {paths[0][0]!r} only helps to write the base '
            'config, and changing it changes nothing; name what is computed from it'
        )
    return paths


def _matches(node: Any, tokens: list[str]) -> Iterator[KeyPath]:
    """Yield the path of every way to read ``tokens`` below ``node``."""
    if not tokens:
        yield ()
    for taken in range(1, len(tokens) + 1):
        for step in _steps(node, '.'.join(tokens[:taken])):
            for rest in _matches(node[step], tokens[taken:]):
                yield (step, *rest)


def _steps(node: Any, name: str) -> list[str | int]:
    """The keys or indices of ``node`` that ``name`` means."""
    if isinstance(node, Mapping):
        return [key for key in node if (fnmatchcase(key, name) if '*' in name else key == name)]
    if isinstance(node, (list, tuple)):
        if name.isdecimal():
            return [int(name)] if int(name) < len(node) else []
        found = [index for index, item in enumerate(node) if isinstance(item, Mapping) and item.get('type') == name]
        return [found[0]] if len(found) == 1 else []
    return []


def fitting(old: Any, new: Any, key: str) -> Any:
    """Return ``new`` as a value of the type of ``old``.

    An integer serves as a float, a list as a tuple and the other way round; where the base has None, anything goes.

    Raises:
        InputError: It is of another type.
    """
    if type(old) is float and type(new) is int:
        return float(new)
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        return type(old)(new)
    if old is None or type(old) is type(new) or (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return new
    expected = 'dict' if isinstance(old, Mapping) else type(old).__name__
    raise InputError(f'{key!r} must be of the type of its value in the base config, {expected} {old!r}, got {new!r}')


def assignments(config: Mapping[str, Any], key: str, value: Any) -> list[Assignment]:
    """Return what setting ``key`` to ``value`` changes, leaf by leaf.

    A dict changes the entries it names, as in mmengine; with ``_delete_=True`` it replaces what was there.

    Raises:
        InputError: The key is not in the config, or the value is of another type.
    """
    return [one for path in find(config, key) for one in _leaves(read(config, path), path, value, key)]


def read(config: Any, path: KeyPath) -> Any:
    """Return what is at ``path``."""
    return functools.reduce(lambda node, step: node[step], path, config)


def _leaves(old: Any, path: KeyPath, value: Any, key: str) -> Iterator[Assignment]:
    value = fitting(old, value, key)
    if not isinstance(value, Mapping):
        yield path, value
    elif old is None or value.get(DELETE):
        yield path, {name: entry for name, entry in value.items() if name != DELETE}
    else:
        for name, entry in value.items():
            if name not in old:
                hint = nearest(str(name), map(str, old)) or f'; {DELETE}=True replaces the whole'
                raise InputError(f'entries of {key!r} must be in the base config, got {name!r}{hint}')
            yield from _leaves(old[name], (*path, name), entry, key)


def applied(config: Mapping[str, Any], changes: Iterable[Assignment]) -> dict[str, Any]:
    """Return ``config`` with each change made, in order; what they leave alone is shared."""
    return functools.reduce(lambda done, change: _with(done, *change), changes, dict(config))


def _with(node: Any, path: KeyPath, value: Any) -> Any:
    if not path:
        return value
    step, rest = path[0], path[1:]
    if isinstance(node, Mapping):
        return {**node, step: _with(node.get(step, {}), rest, value)}
    return type(node)(_with(item, rest, value) if index == step else item for index, item in enumerate(node))


def difference(old: Any, new: Any) -> Any:
    """Return what mmengine merges into ``old`` to give ``new``: of dicts the changed entries, lists as a whole."""
    if not isinstance(new, Mapping):
        return new
    if not isinstance(old, Mapping) or old.keys() - new.keys():
        return {DELETE: True, **new}
    changed = [key for key in new if key not in old or old[key] != new[key]]
    return {key: difference(old[key], new[key]) if key in old else new[key] for key in changed}


def config_source(config: Mapping[str, Any]) -> str:
    """A config as Python; the standard library's formatter takes a hundredth of the time of mmengine's."""
    return ''.join(f'{key} = {pprint.pformat(value, width=116, sort_dicts=False)}\n' for key, value in config.items())


def write_base(folder: Path, source: Path, config: Mapping[str, Any]) -> None:
    """Write the resolved base config of a study beside its trials.

    Trials build on this copy: they stay what they were when somebody edits the original, and the study's folder can
    be moved to another checkout or machine as a whole.
    """
    write_atomically(folder / BASE, f'# {source.as_posix()}, resolved\n{config_source(config)}')


def overrides(base: str, old: Mapping[str, Any], new: Mapping[str, Any], note: str) -> str:
    """Return the text of the config file that makes ``new`` of the config ``old`` in the file ``base``."""
    return f'# {note}\n_base_ = {base!r}\n\n{config_source(difference(old, new))}'


def write_overrides(path: Path, base: str, old: Mapping[str, Any], new: Mapping[str, Any], note: str) -> None:
    """Write :func:`overrides`, reload the file and compare.

    Raises:
        InputError: The reloaded file is not ``new``.
    """
    write_atomically(path, overrides(base, old, new, note))
    found = differences(new, load_config(path).to_dict())
    if found:
        raise InputError(f'{path} must reload as written, got differences:{listed(found)}')


def listed(found: Sequence[Difference]) -> str:
    """Differences as lines of a message."""
    return ''.join(f'\n  {one.key}: {one.base} → {one.run}' for one in found[:20])
