"""Trials as override files."""

import copy
import difflib
import inspect
import pprint
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mmengine.runner import Runner

from armbench_mmdet.configs import Difference, differences, dotted_keys, load_config
from armbench_mmdet.errors import InputError
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
        near = difflib.get_close_matches(key, list(dotted_keys(config)), n=3)
        hint = f'; did you mean {" or ".join(near)}?' if near else ''
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


def read(config: Any, path: KeyPath) -> Any:
    """Return what is at ``path``."""
    for step in path:
        config = config[step]
    return config


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


def _leaves(old: Any, path: KeyPath, value: Any, key: str) -> Iterator[Assignment]:
    value = fitting(old, value, key)
    if not isinstance(value, Mapping):
        yield path, value
    elif old is None or value.get(DELETE):
        yield path, {name: entry for name, entry in value.items() if name != DELETE}
    else:
        for name, entry in value.items():
            if name not in old:
                near = difflib.get_close_matches(str(name), [str(known) for known in old], n=1)
                hint = f'; did you mean {near[0]}?' if near else f'; {DELETE}=True replaces the whole'
                raise InputError(f'entries of {key!r} must be in the base config, got {name!r}{hint}')
            yield from _leaves(old[name], (*path, name), entry, key)


def resolved(path: Path) -> dict[str, Any]:
    """Return a config file with its bases, as plain dicts."""
    return load_config(path).to_dict()


def applied(config: Mapping[str, Any], changes: Iterable[Assignment]) -> dict[str, Any]:
    """Return a copy of ``config`` with each change made, in order."""
    result: dict[str, Any] = copy.deepcopy(dict(config))
    for path, value in changes:
        _assign(result, path, copy.deepcopy(value))
    return result


def _assign(node: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Return ``node`` with ``value`` at ``path``; only tuples become new objects."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    if isinstance(node, tuple):
        return tuple(_assign(list(node), path, value))
    node[step] = _assign(node[step], rest, value)
    return node


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested dict that mmengine merges into ``old`` to give ``new``: changed leaves, lists as a whole."""
    if old.keys() - new.keys():
        return {DELETE: True, **new}
    return {key: _change(key, old, value) for key, value in new.items() if key not in old or old[key] != value}


def _change(key: str, old: Mapping[str, Any], value: Any) -> Any:
    if key not in old or not isinstance(value, Mapping):
        return value
    return difference(old[key], value) if isinstance(old[key], Mapping) else {DELETE: True, **value}


def _source(config: Mapping[str, Any]) -> str:
    """A config as Python; the standard library's formatter takes a hundredth of the time of mmengine's."""
    return ''.join(f'{key} = {pprint.pformat(value, width=116, sort_dicts=False)}\n' for key, value in config.items())


def write_base(folder: Path, source: Path, config: dict[str, Any]) -> None:
    """Write the resolved base config of a study beside its trials.

    Trials build on this copy: they stay what they were when somebody edits the original, and the study's folder can
    be moved to another checkout or machine as a whole.

    Raises:
        InputError: The folder has the base of another study, or the config cannot be written as a file.
    """
    path = folder / BASE
    if not path.exists():
        write_atomically(path, f'# {source.as_posix()}, resolved\n{_source(config)}')
    found = differences(resolved(path), config)
    if found:
        raise InputError(
            f'{path} must be the base config of this study, got differences:{listed(found)}\n'
            'choose another --study, or move the folder away'
        )


def write_overrides(path: Path, base: str, old: dict[str, Any], new: dict[str, Any], note: str) -> None:
    """Write the config file that makes ``new`` of the config ``old`` in the file ``base``, reload it and compare.

    Raises:
        InputError: The reloaded file is not ``new``.
    """
    write_atomically(path, f'# {note}\n_base_ = {base!r}\n\n{_source(difference(old, new))}')
    found = differences(new, resolved(path))
    if found:
        raise InputError(f'{path} must reload as written, got differences:{listed(found)}')


def listed(found: Sequence[Difference]) -> str:
    """Differences as lines of a message."""
    return ''.join(f'\n  {one.key}: {one.base} → {one.run}' for one in found[:20])
