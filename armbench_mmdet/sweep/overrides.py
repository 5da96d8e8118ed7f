"""A trial as a configuration file: the base plus the leaves that differ."""

from __future__ import annotations

import ast
import copy
import os
import pprint
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from armbench_mmdet.errors import InputError
from armbench_mmdet.launch.config import load_config
from armbench_mmdet.sweep.keys import DELETE, Assignment

BASE = 'base.py'


def plain(node: Any) -> Any:
    """Return a config without mmengine's dict class."""
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(plain(value) for value in node)
    return node


def resolved(path: Path) -> dict[str, Any]:
    """Return a config file with its bases, as plain dicts.

    Raises:
        InputError: It is missing or does not load.
    """
    return plain(load_config(path).to_dict())


def check_bases(path: Path, above: tuple[Path, ...] = ()) -> None:
    """Follow the ``_base_`` lines of a config file; what cannot be followed is left to loading it.

    Args:
        path: The file.
        above: The files that led to it.

    Raises:
        InputError: A file is among its own bases, which mmengine takes long to give up on.
    """
    path = Path(os.path.normpath(path))
    if path in above:
        chain = ' → '.join(str(file) for file in (*above[above.index(path) :], path))
        raise InputError(f'config must not be among its own bases, got {chain}')
    for base in _bases(path):
        if '::' not in base:
            check_bases(path.parent / base, (*above, path))


def _bases(path: Path) -> list[str]:
    try:
        nodes = ast.parse(path.read_text(encoding='utf-8')).body
        values = [n.value for n in nodes if isinstance(n, ast.Assign) and getattr(n.targets[0], 'id', '') == '_base_']
        found = ast.literal_eval(values[0]) if values else []
    except (OSError, SyntaxError, ValueError):
        return []
    return [found] if isinstance(found, str) else list(found)


def applied(config: Mapping[str, Any], changes: Iterable[Assignment]) -> dict[str, Any]:
    """Return a copy of ``config`` with each change made, in order."""
    result: dict[str, Any] = copy.deepcopy(plain(config))
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


def differing(old: Any, new: Any, name: str = '') -> Iterator[str]:
    """Yield a line for each leaf in which two nested values differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            path = f'{name}[{key!r}]' if '.' in str(key) else f'{name}.{key}'.lstrip('.')
            if key not in old:
                yield f'{path}: nothing → {new[key]!r}'
            elif key not in new:
                yield f'{path}: {old[key]!r} → nothing'
            else:
                yield from differing(old[key], new[key], path)
    elif old != new or type(old) is not type(new):
        yield f'{name}: {old!r} → {new!r}'


def write_text(path: Path, text: str) -> None:
    """Write a file in one step, so that nobody reads half of it."""
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    part.write_text(text, encoding='utf-8')
    part.replace(path)


def _source(config: Mapping[str, Any]) -> str:
    """A config as Python; the standard library's formatter takes a hundredth of the time of mmengine's."""
    return ''.join(f'{key} = {pprint.pformat(value, width=116, sort_dicts=False)}\n' for key, value in config.items())


def write_base(folder: Path, source: Path, config: dict[str, Any]) -> None:
    """Write the resolved base config of a study beside its trials.

    Trials build on this copy: they stay what they were when somebody edits the original, and the study's folder can
    be moved to another checkout or machine as a whole.

    Args:
        folder: The study's folder.
        source: The base config's own file, for the record.
        config: The resolved base config.

    Raises:
        InputError: The folder has the base of another study, or the config cannot be written as a file.
    """
    path = folder / BASE
    if not path.exists():
        write_text(path, f'# {source.as_posix()}, resolved\n{_source(config)}')
    lines = list(differing(resolved(path), config))
    if lines:
        raise InputError(
            f'{path} must be the base config of this study, got differences:\n  '
            + '\n  '.join(lines[:10])
            + '\nchoose another --study, or move the folder away'
        )


def write_overrides(path: Path, base: str, old: dict[str, Any], new: dict[str, Any], note: str) -> None:
    """Write the config file that makes ``new`` of the base config, reload it and compare.

    Args:
        path: The file to write.
        base: Where the base is, relative to the file's folder.
        old: The resolved base config.
        new: What the file must resolve to.
        note: One line about the file, written as a comment.

    Raises:
        InputError: The reloaded file is not ``new``.
    """
    change = difference(old, new)
    write_text(path, f'# {note}\n_base_ = {base!r}\n\n{_source(change)}')
    lines = list(differing(new, resolved(path)))
    if lines:
        raise InputError(f'{path} must reload as written, got differences:\n  ' + '\n  '.join(lines[:10]))
