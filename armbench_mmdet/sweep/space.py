"""The search space: a config file of ranges for the settings of another, which are named by dotted keys."""

import functools
import inspect
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import optuna
from mmengine.runner import Runner
from msgspec import Meta
from optuna.trial import BaseTrial, FixedTrial

from armbench_mmdet.configs import dotted_keys, load_config
from armbench_mmdet.errors import InputError, nearest

KeyPath = tuple[str | int, ...]
Assignment = tuple[KeyPath, Any]
DELETE = '_delete_'
_Direction = Literal['maximize', 'minimize']
# What a run reads. Other names at the top of a config are values that it computes others from, such as max_iters.
_READ = {*inspect.signature(Runner.__init__).parameters, 'auto_scale_lr', 'runner_type', 'custom_imports'} - {'self'}


class SpaceFile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What stands in a search space's file.

    Attributes:
        parameters: A range for each dotted key, with Optuna's arguments; or for several, named by ``paths``.
        objective: A metric of a validation, or several, with as many directions: then the outcome is a Pareto front.
        constraints: Upper limits of metrics; a trial above one is not the best.
        enqueue: Values of parameters, by name, that are tried first; parameters left out are sampled.
        seed: Of the sampler; a trial's draws depend on it, on the trial's number and on the trials before.
        max_retries: How often the parameters of a trial that was lost are tried again.
        heartbeat_s: Seconds between two signs of life of a running trial.
        fixed: Settings of every trial.
    """

    base: str
    parameters: Annotated[dict[str, dict[str, Any]], Meta(min_length=1)]
    objective: str | list[str] = 'coco/segm_mAP'
    direction: _Direction | list[_Direction] = 'maximize'
    constraints: dict[str, float] = {}
    enqueue: list[dict[str, Any]] = []
    sampler: dict[str, Any] = msgspec.field(default_factory=lambda: {'type': 'TPESampler'})
    pruner: dict[str, Any] = msgspec.field(default_factory=lambda: {'type': 'NopPruner'})
    n_trials: Annotated[int, Meta(ge=1)] = 50
    seed: Annotated[int, Meta(ge=0)] = 0
    max_retries: Annotated[int, Meta(ge=0)] = 2
    heartbeat_s: Annotated[float, Meta(ge=1, le=3600)] = 15.0
    fixed: dict[str, Any] = {}

    @property
    def objectives(self) -> list[str]:
        """The objectives, one or several."""
        return [self.objective] if isinstance(self.objective, str) else self.objective

    @property
    def directions(self) -> list[_Direction]:
        """The direction of each objective."""
        return [self.direction] if isinstance(self.direction, str) else self.direction


class _Bundle(msgspec.Struct, forbid_unknown_fields=True):
    """What one choice of several sets, and what is searched under it only."""

    overrides: dict[str, Any] = {}
    parameters: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class Space:
    """A checked search space: its file and what stands in it, the base config's file and that config, resolved."""

    file: Path
    given: SpaceFile
    base: Path
    base_config: dict[str, Any]

    def sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Return the sampler of one trial; every trial has its own random stream, whoever runs it."""
        seed = int(np.random.SeedSequence([self.given.seed, number]).generate_state(1)[0])
        return _built(optuna.samplers, self.given.sampler, seed=seed)

    def pruner(self) -> optuna.pruners.BasePruner:
        """Return the pruner; its steps are validations, the first being 1. Several objectives have none."""
        return _built(optuna.pruners, self.given.pruner if len(self.given.objectives) == 1 else {'type': 'NopPruner'})

    def config(self, trial: BaseTrial, with_fixed: bool = True) -> dict[str, Any]:
        """Let the trial's sampler choose, and return the resolved config of the trial, or without what is fixed."""
        fixed = applied(self.base_config, assignments(self.base_config, self.given.fixed))
        return applied(fixed if with_fixed else self.base_config, _chosen(trial, self.given.parameters, fixed))


def _built(module: Any, spec: Mapping[str, Any], **more: Any) -> Any:
    return getattr(module, spec.get('type', ''))(**{key: value for key, value in spec.items() if key != 'type'}, **more)


def _value(trial: BaseTrial, name: str, spec: Mapping[str, Any]) -> Any:
    """Let the trial's sampler choose a value from a range."""
    arguments = dict(spec)
    kind = arguments.pop('type', None)
    if kind == 'choice':
        return trial.suggest_categorical(name, **{**arguments, 'choices': list(spec.get('choices', ()))})
    if kind not in ('float', 'int', 'categorical'):
        raise InputError(f'type must be float, int, categorical or choice, got {kind!r}')
    arguments.pop('paths', None)
    return getattr(trial, f'suggest_{kind}')(name, **arguments)


def _chosen(
    trial: BaseTrial, specs: Mapping[str, Mapping[str, Any]], config: Mapping[str, Any], prefix: str = ''
) -> list[Assignment]:
    """Let the trial's sampler choose a value of each parameter, and return what that changes in a config."""
    changes: list[Assignment] = []
    for name, spec in specs.items():
        value = _value(trial, prefix + name, spec)
        if spec['type'] != 'choice':
            changes += assignments(config, dict.fromkeys(spec.get('paths', [name]), value))
            continue
        bundle = msgspec.convert(spec['choices'][value], _Bundle)
        own = assignments(config, bundle.overrides)
        changes += [*own, *_chosen(trial, bundle.parameters, applied(config, own), f'{prefix}{name}.{value}.')]
    return changes


def load_space(path: str | Path) -> Space:
    """Read and check a search space; ``base`` in it is relative to its folder.

    Raises:
        InputError: It is not of its shape; or with every problem found in what it names.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings('ignore', category=optuna.exceptions.ExperimentalWarning)
    file = Path(path)
    content = load_config(file).to_dict()
    try:  # _names are for help
        given = msgspec.convert({key: value for key, value in content.items() if not key.startswith('_')}, SpaceFile)
    except msgspec.ValidationError as error:
        keys = ', '.join(SpaceFile.__struct_fields__)
        raise InputError(f'search space must have known keys and types: {error} (in {file}); keys: {keys}') from error
    base = Path(os.path.normpath(file.parent / given.base))
    space = Space(file, given, base, load_config(base).to_dict())
    problems: list[str] = []
    known = _checked(_Bundle(given.fixed, given.parameters), space.base_config, '', 'fixed', problems)
    if len(given.directions) != len(given.objectives):
        problems.append(f'direction must be one for each objective, {given.objective}, got {given.direction!r}')
    with _noting(problems, f'sampler {given.sampler}'):
        space.sampler(0)
    with _noting(problems, f'pruner {given.pruner}'):
        space.pruner()
    for index, row in enumerate(given.enqueue):
        for name, value in row.items():
            with _noting(problems, f'enqueue[{index}]'):
                if name not in known:
                    raise InputError(f'names must be those of parameters, got {name!r}{nearest(name, known)}')
                _value(FixedTrial({name: value}), name, known[name])
    if problems:
        count = '1 problem' if len(problems) == 1 else f'{len(problems)} problems'
        raise InputError(f'search space must be free of problems, got {count} (in {file}):\n  ' + '\n  '.join(problems))
    return space


def _checked(
    bundle: _Bundle, config: dict[str, Any], prefix: str, where: str, problems: list[str]
) -> dict[str, Mapping[str, Any]]:
    """Note what is wrong with settings and with the ends of ranges, and return all ranges by Optuna's names."""
    changes: list[Assignment] = []
    for key, value in bundle.overrides.items():
        with _noting(problems, where):
            changes += assignments(config, {key: value})
    config = applied(config, changes)
    known: dict[str, Mapping[str, Any]] = {}
    for name, spec in bundle.parameters.items():
        own = prefix + name
        known[own] = spec
        with _noting(problems, f'parameters[{own!r}]'):
            choices = spec.get('choices', (spec.get('low'), spec.get('high')))
            if spec.get('type') != 'choice':
                for value in choices:
                    _chosen(FixedTrial({own: value}), {name: spec}, config, prefix)
                continue
            _value(FixedTrial({own: next(iter(choices), None)}), own, spec)
            for choice, under in msgspec.convert(choices, dict[str, _Bundle]).items():
                known |= _checked(under, config, f'{own}.{choice}.', f'parameters[{own!r}][{choice!r}]', problems)
    return known


@contextmanager
def _noting(problems: list[str], where: str) -> Iterator[None]:
    """Add to ``problems`` what is raised within, our own and Optuna's, and the warnings of values out of a range."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error', UserWarning)
            yield
    except (InputError, AttributeError, ImportError, TypeError, ValueError, UserWarning, msgspec.MsgspecError) as error:
        problems.append(f'{where}: {error}')


def assignments(config: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Assignment]:
    """Return what settings change in a config, leaf by leaf.

    Args:
        config: The resolved config.
        settings: Values by key: names joined by dots. A name may itself contain dots
            (``custom_keys.backbone.norm.lr_mult``) or stars (``backbone*``). An item of a list is named by its index,
            or by its ``type`` if no other item has that type (``pipeline.LazyRandomFlip.prob``). A value is of the
            type that is there; an integer serves as a float, a list as a tuple and the other way round, anything for
            None. A dict changes the entries it names, as in mmengine; with ``_delete_=True`` it replaces the whole.

    Raises:
        InputError: A key is not in the config (the message has the nearest name), names several settings without a
            star, or names one that the run does not read; or a value is of another type.
    """
    return [
        change
        for key, value in settings.items()
        for path, old in _find(config, key)
        for change in _leaves(old, path, value, key)
    ]


def _find(config: Mapping[str, Any], key: str) -> list[Assignment]:
    """The paths that a key names, with the values that are there."""
    found = list(_matches(config, key.split('.')))
    paths = [path for path, _ in found]
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
    return found


def _matches(node: Any, tokens: list[str]) -> Iterator[Assignment]:
    """Yield the path of every way to read ``tokens`` below ``node``, and what is there."""
    if not tokens:
        yield (), node
    for taken in range(1, len(tokens) + 1):
        for step in _steps(node, '.'.join(tokens[:taken])):
            for rest, value in _matches(node[step], tokens[taken:]):
                yield (step, *rest), value


def _steps(node: Any, name: str) -> list[str | int]:
    """The keys or indices of ``node`` that ``name`` means."""
    if isinstance(node, Mapping):
        return [key for key in node if key == name or ('*' in name and fnmatchcase(key, name))]
    items = enumerate(node) if isinstance(node, (list, tuple)) else ()
    found = [index for index, item in items if name in (str(index), isinstance(item, Mapping) and item.get('type'))]
    return [found[0]] if len(found) == 1 else []


def _leaves(old: Any, path: KeyPath, value: Any, key: str) -> Iterator[Assignment]:
    """Yield what makes ``value`` of ``old``, which is at ``path``."""
    if isinstance(value, Mapping) and (old is None or isinstance(old, Mapping)):
        if old is None or value.get(DELETE):
            yield path, {name: entry for name, entry in value.items() if name != DELETE}
            return
        for name, entry in value.items():
            if name not in old:
                hint = nearest(str(name), map(str, old)) or f'; {DELETE}=True replaces the whole'
                raise InputError(f'entries of {key!r} must be in the base config, got {name!r}{hint}')
            yield from _leaves(old[name], (*path, name), entry, f'{key}.{name}')
    elif isinstance(old, (list, tuple)) and isinstance(value, (list, tuple)):
        yield path, type(old)(value)
    elif type(old) is float and type(value) is int:
        yield path, float(value)
    elif old is None or type(old) is type(value):
        yield path, value
    else:
        expected = f'{"dict" if isinstance(old, Mapping) else type(old).__name__} {old!r}'
        raise InputError(f'{key!r} must be of the type of its value in the base config, {expected}, got {value!r}')


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
