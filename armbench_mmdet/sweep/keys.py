"""Settings of a resolved config: how they are named, where they are, which values they take."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from mmengine.runner import Runner

from armbench_mmdet.errors import InputError

Path = tuple[str | int, ...]
Key = str | Sequence[str]
Assignment = tuple[Path, Any]

DELETE = '_delete_'
# What a run reads. Other names at the top of a config are values that it computes others from, such as max_iters.
_READ = {*inspect.signature(Runner.__init__).parameters, 'auto_scale_lr', 'runner_type', 'custom_imports'} - {'self'}


def find(config: Mapping[str, Any], key: Key) -> list[Path]:
    """Return where ``key`` is in a resolved config.

    Args:
        config: The resolved config.
        key: Names joined by dots, or a list of names where dots are ambiguous. A name may itself contain dots
            (``custom_keys.backbone.norm.lr_mult``) or stars (``backbone*``). An item of a list is named by its
            index, or by its ``type`` if no other item has that type (``pipeline.LazyRandomFlip.prob``).

    Returns:
        The path of each match: one, unless the key has stars.

    Raises:
        InputError: There is none (the message has the nearest names), there are several, or the run does not read it.
    """
    is_dotted = isinstance(key, str)
    name = key if isinstance(key, str) else list(key)
    paths = list(_matches(config, key.split('.') if isinstance(key, str) else list(key), is_dotted))
    if not paths:
        text = key if isinstance(key, str) else '.'.join(key)
        near = difflib.get_close_matches(text, list(_names(config)), n=3, cutoff=0.6)
        hint = f'; did you mean {" or ".join(near)}?' if near else ''
        raise InputError(f'key must be one of the base config, got {name!r}{hint}')
    if len(paths) > 1 and '*' not in ''.join(key):
        raise InputError(f'key must name one setting, got {name!r}, which names {paths}; give it as path=[…]')
    if str(paths[0][0]) not in _READ:
        raise InputError(
            f'key must name a setting that the run reads, got {name!r}: {paths[0][0]!r} only helps to write the base '
            'config, and changing it changes nothing; name what is computed from it'
        )
    return paths


def _matches(node: Any, tokens: list[str], is_dotted: bool) -> Iterator[Path]:
    """Yield the path of every way to read ``tokens`` below ``node``."""
    if not tokens:
        yield ()
        return
    for taken in range(1, len(tokens) + 1 if is_dotted else 2):
        name = '.'.join(tokens[:taken])
        for step in _steps(node, name):
            for rest in _matches(node[step], tokens[taken:], is_dotted):
                yield (step, *rest)


def _steps(node: Any, name: str) -> list[str | int]:
    """The keys or indices of ``node`` that ``name`` means."""
    if isinstance(node, Mapping):
        return [key for key in node if (fnmatchcase(key, name) if '*' in name else key == name)]
    if isinstance(node, (list, tuple)):
        if name.isdecimal():
            return [int(name)] if int(name) < len(node) else []
        of_type: list[str | int] = []
        of_type += [i for i, item in enumerate(node) if isinstance(item, Mapping) and item.get('type') == name]
        return of_type if len(of_type) == 1 else []
    return []


def _names(node: Any, prefix: str = '') -> Iterator[str]:
    """Yield the dotted name of everything below ``node``."""
    if isinstance(node, Mapping):
        items = [(str(key), value) for key, value in node.items()]
    elif isinstance(node, (list, tuple)):
        types = [item.get('type') if isinstance(item, Mapping) else None for item in node]
        items = [(str(t) if t and types.count(t) == 1 else str(i), node[i]) for i, t in enumerate(types)]
    else:
        return
    for key, value in items:
        yield prefix + key
        yield from _names(value, f'{prefix}{key}.')


def read(config: Any, path: Path) -> Any:
    """Return what is at ``path``."""
    for step in path:
        config = config[step]
    return config


def fitting(old: Any, new: Any, key: Key) -> Any:
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


def assignments(config: Mapping[str, Any], key: Key, value: Any) -> list[Assignment]:
    """Return what setting ``key`` to ``value`` changes, leaf by leaf.

    A dict changes the entries it names, as in mmengine; with ``_delete_=True`` it replaces what was there.

    Raises:
        InputError: The key is not in the config, or the value is of another type.
    """
    return [one for path in find(config, key) for one in _leaves(read(config, path), path, value, key)]


def _leaves(old: Any, path: Path, value: Any, key: Key) -> Iterator[Assignment]:
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
