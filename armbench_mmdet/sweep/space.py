"""The search space: a config file of ranges."""

from __future__ import annotations

import ast
import difflib
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.overrides import (
    Assignment,
    Key,
    KeyPath,
    applied,
    assignments,
    check_bases,
    find,
    fitting,
    read,
    resolved,
)

_FIELDS = {
    'float': {'low', 'high', 'log', 'step'},
    'int': {'low', 'high', 'log', 'step'},
    'categorical': {'choices'},
    'choice': {'choices'},
}


@dataclass(frozen=True)
class Parameter:
    """One value that is searched, for one setting of the config or for several that go together.

    Attributes:
        name: Its name in the study.
        settings: Where the value goes, each with the base config's value.
        distribution: The values it may take.
    """

    name: str
    settings: tuple[Assignment, ...]
    distribution: optuna.distributions.BaseDistribution

    def suggest(self, trial: optuna.trial.BaseTrial) -> list[Assignment]:
        """Let the trial's sampler choose a value, and return what it changes."""
        value = _suggest(trial, self.name, self.distribution)
        return [(path, fitting(old, value, self.name)) for path, old in self.settings]

    def touched(self) -> set[KeyPath]:
        """Return the settings it may change."""
        return {path for path, _ in self.settings}


@dataclass(frozen=True)
class Choice:
    """One of several named bundles of settings, each with parameters of its own.

    Attributes:
        name: Its name in the study.
        bundles: What each choice sets.
        parameters: What is searched only under that choice.
    """

    name: str
    bundles: Mapping[str, tuple[Assignment, ...]]
    parameters: Mapping[str, tuple[Parameter | Choice, ...]]

    def suggest(self, trial: optuna.trial.BaseTrial) -> list[Assignment]:
        """Let the trial's sampler choose a bundle and then its parameters, and return what they change."""
        chosen = trial.suggest_categorical(self.name, list(self.bundles))
        changes = list(self.bundles[chosen])
        for parameter in self.parameters[chosen]:
            changes += parameter.suggest(trial)
        return changes

    def touched(self) -> set[KeyPath]:
        """Return the settings it may change."""
        paths = {path for bundle in self.bundles.values() for path, _ in bundle}
        return paths.union(*(p.touched() for group in self.parameters.values() for p in group))


def _suggest(trial: optuna.trial.BaseTrial, name: str, distribution: Any) -> Any:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    suggest = (
        trial.suggest_int if isinstance(distribution, optuna.distributions.IntDistribution) else trial.suggest_float
    )
    return suggest(name, distribution.low, distribution.high, log=distribution.log, step=distribution.step)


def parse_parameters(
    specs: Any, config: Mapping[str, Any], problems: list[str], prefix: str = ''
) -> tuple[Parameter | Choice, ...]:
    """Read the ``parameters`` of a search space.

    Args:
        specs: Name → specification.
        config: The resolved config they change.
        problems: What is wrong is added here.
        prefix: Put before each name: the choice they belong to.

    Returns:
        Those without a problem.
    """
    if not isinstance(specs, Mapping):
        problems.append(f'parameters must be a dict, got {specs!r}')
        return ()
    found: list[Parameter | Choice] = []
    for name, spec in specs.items():
        try:
            found.append(_parse(str(name), spec, config, problems, prefix))
        except InputError as error:
            problems.append(f'parameters[{prefix + str(name)!r}]: {error}')
    _check_overlaps({p.name: p.touched() for p in found}, problems)
    return tuple(found)


def _parse(name: str, spec: Any, config: Mapping[str, Any], problems: list[str], prefix: str) -> Parameter | Choice:
    if not isinstance(spec, Mapping) or spec.get('type') not in _FIELDS:
        raise InputError(f'it must be a dict with a type of {", ".join(_FIELDS)}, got {spec!r}')
    kind = spec['type']
    unknown = set(spec) - _FIELDS[kind] - {'type'} - ({'path', 'paths'} if kind != 'choice' else set())
    if unknown:
        raise InputError(f'its fields must be of {", ".join(sorted(_FIELDS[kind]))}, got {", ".join(sorted(unknown))}')
    if kind == 'choice':
        return _parse_choice(prefix + name, spec, config, problems)
    distribution = _categories(spec) if kind == 'categorical' else _range(spec)
    keys: list[Key] = list(spec['paths']) if 'paths' in spec else [spec.get('path', name)]
    settings = tuple((path, read(config, path)) for key in keys for path in find(config, key))
    for path, old in settings:
        for value in _extremes(distribution):
            fitting(old, value, '.'.join(map(str, path)))
    return Parameter(prefix + name, settings, distribution)


def _range(spec: Mapping[str, Any]) -> optuna.distributions.BaseDistribution:
    wanted = (int,) if spec['type'] == 'int' else (int, float)
    for field in ('low', 'high', *({'step'} & set(spec))):
        value: Any = spec.get(field)
        if type(value) not in wanted or not math.isfinite(value):
            raise InputError(f'{field} must be a finite {spec["type"]}, got {value!r}')
    low, high, log, step = spec['low'], spec['high'], spec.get('log', False), spec.get('step')
    if not low < high:
        raise InputError(f'high must be above low = {low!r}, got {high!r}: the range is empty')
    if type(log) is not bool:
        raise InputError(f'log must be True or False, got {log!r}')
    if log and low <= 0:
        raise InputError(f'low must be above 0 on a logarithmic scale, got {low!r}')
    if log and step is not None:
        raise InputError(f'step must be left out on a logarithmic scale, got {step!r}')
    if step is not None and not 0 < step <= high - low:
        raise InputError(f'step must be above 0 and at most {high - low!r}, got {step!r}')
    if spec['type'] == 'int':
        return optuna.distributions.IntDistribution(low, high, log=log, step=step or 1)
    return optuna.distributions.FloatDistribution(low, high, log=log, step=step)


def _categories(spec: Mapping[str, Any]) -> optuna.distributions.BaseDistribution:
    choices = spec.get('choices')
    if not isinstance(choices, (list, tuple)) or len(choices) < 2 or len({repr(c) for c in choices}) < len(choices):
        raise InputError(f'choices must be a list of at least two different values, got {choices!r}')
    rich = [value for value in choices if not isinstance(value, (bool, int, float, str, type(None)))]
    if rich:
        raise InputError(f"choices must be numbers, strings or None, got {rich[0]!r}; type='choice' gives it a name")
    return optuna.distributions.CategoricalDistribution(choices)


def _extremes(distribution: Any) -> tuple[Any, ...]:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return tuple(distribution.choices)
    return distribution.low, distribution.high


def _parse_choice(name: str, spec: Mapping[str, Any], config: Mapping[str, Any], problems: list[str]) -> Choice:
    choices = spec.get('choices')
    if not isinstance(choices, Mapping) or len(choices) < 2:
        raise InputError(f'choices must be a dict of at least two named bundles, got {choices!r}')
    bundles: dict[str, tuple[Assignment, ...]] = {}
    parameters: dict[str, tuple[Parameter | Choice, ...]] = {}
    for choice, bundle in choices.items():
        if not isinstance(bundle, Mapping) or set(bundle) - {'overrides', 'parameters'}:
            raise InputError(f'choices[{choice!r}] must be a dict of overrides and parameters, got {bundle!r}')
        changes = parse_overrides(bundle.get('overrides', {}), config, problems, f'parameters[{name!r}][{choice!r}]')
        bundles[choice] = tuple(changes)
        inner = bundle.get('parameters', {})
        parameters[choice] = parse_parameters(inner, applied(config, changes), problems, f'{name}.{choice}.')
    return Choice(name, bundles, parameters)


def parse_overrides(overrides: Any, config: Mapping[str, Any], problems: list[str], name: str) -> list[Assignment]:
    """Read a dict of settings, dotted key → value; what is wrong is added to ``problems``."""
    if not isinstance(overrides, Mapping):
        problems.append(f'{name} must be a dict of keys and values, got {overrides!r}')
        return []
    changes: list[Assignment] = []
    for key, value in overrides.items():
        try:
            changes += assignments(config, key, value)
        except InputError as error:
            problems.append(f'{name}: {error}')
    return changes


def _check_overlaps(touched: Mapping[str, set[KeyPath]], problems: list[str]) -> None:
    """Add a problem for each two parameters that set the same thing."""
    names = list(touched)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            common = [a for a in touched[first] for b in touched[second] if a[: len(b)] == b or b[: len(a)] == a]
            if common:
                where = '.'.join(map(str, min(common, key=lambda path: len(tuple(path)))))
                problems.append(f'parameters must set different things, got {first!r} and {second!r}: both set {where}')


_DEFAULTS: dict[str, Any] = {
    'base': None,
    'parameters': None,
    'objective': 'coco/segm_mAP',
    'direction': 'maximize',
    'sampler': {'type': 'TPESampler'},
    'pruner': {'type': 'NopPruner'},
    'n_trials': 50,
    'seed': 0,
    'max_retries': 2,
    'heartbeat_s': 15.0,
    'fixed': {},
}
SAMPLERS = ('TPESampler', 'RandomSampler', 'GPSampler')
PRUNERS = (
    'NopPruner',
    'MedianPruner',
    'PercentilePruner',
    'ThresholdPruner',
    'SuccessiveHalvingPruner',
    'HyperbandPruner',
)


@dataclass(frozen=True)
class Space:
    """A checked search space.

    Attributes:
        file: The file it was read from.
        base: The base config's file.
        base_config: The base config, resolved.
        objective: Name of the metric.
        direction: ``maximize`` or ``minimize``.
        n_trials: How many trials the study is to have.
        seed: Of the sampler; a trial's draws depend on it and on the trial's number only.
        max_retries: How often the parameters of a trial that died are tried again.
        heartbeat_s: Seconds between two signs of life of a running trial.
        fixed: Settings that differ from the base in every trial.
        parameters: What is searched.
        description: All of it, for comparison with the study of the same name.
    """

    file: Path
    base: Path
    base_config: dict[str, Any]
    objective: str
    direction: Literal['maximize', 'minimize']
    n_trials: int
    seed: int
    max_retries: int
    heartbeat_s: float
    fixed: tuple[Assignment, ...]
    parameters: tuple[Parameter | Choice, ...]
    description: dict[str, Any]

    def sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Return the sampler of one trial; every trial has its own random stream, whoever runs it."""
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        return _built(optuna.samplers, {**self.description['sampler'], 'seed': seed})

    def pruner(self) -> optuna.pruners.BasePruner:
        """Return the pruner; its steps are validations, the first being 1."""
        return _built(optuna.pruners, self.description['pruner'])

    def config(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """Let the trial's sampler choose, and return the resolved config of the trial."""
        changes = [*self.fixed]
        for parameter in self.parameters:
            changes += parameter.suggest(trial)
        return applied(self.base_config, changes)


def load_space(path: str | Path) -> Space:
    """Read and check a search space.

    Args:
        path: The config file; ``base`` in it is relative to its folder.

    Raises:
        InputError: With every problem found.
    """
    file = Path(path)
    problems = _duplicate_keys(file) if file.is_file() else []
    check_bases(file)
    values = {key: value for key, value in resolved(file).items() if not key.startswith('_')}  # _names are for help
    for key in values.keys() - _DEFAULTS.keys():
        near = difflib.get_close_matches(key, _DEFAULTS, n=1)
        hint = f'; did you mean {near[0]}?' if near else f'; a search space has {", ".join(_DEFAULTS)}'
        problems.append(f'key must be one of a search space, got {key!r}{hint}')
    values = {**_DEFAULTS, **values}
    _check_numbers(values, problems)
    for name, module, known in (('sampler', optuna.samplers, SAMPLERS), ('pruner', optuna.pruners, PRUNERS)):
        _check_built(name, module, values[name], known, problems)
    base, config = _base(file, values['base'], problems)
    fixed: list[Assignment] = []
    parameters: tuple[Parameter | Choice, ...] = ()
    if config:
        fixed = parse_overrides(values['fixed'], config, problems, 'fixed')
        parameters = parse_parameters(values['parameters'], applied(config, fixed), problems)
        _check_fixed(fixed, parameters, problems)
    if problems:
        count = '1 problem' if len(problems) == 1 else f'{len(problems)} problems'
        raise InputError(f'search space must be free of problems, got {count} (in {file}):\n  ' + '\n  '.join(problems))
    description = {key: values[key] for key in _DEFAULTS if key not in ('base', 'n_trials')}
    chosen = {key: values[key] for key in ('objective', 'direction', 'n_trials', 'seed', 'max_retries', 'heartbeat_s')}
    return Space(file, base, config, fixed=tuple(fixed), parameters=parameters, description=description, **chosen)


def _base(file: Path, name: Any, problems: list[str]) -> tuple[Path, dict[str, Any]]:
    """Return the base config's path and content, or an empty one and a problem."""
    if not isinstance(name, str):
        problems.append(f'base must be the path of a config file, got {name!r}')
        return file, {}
    path = Path(os.path.normpath(file.parent / name))
    try:
        check_bases(path)
        return path, resolved(path)
    except InputError as error:
        problems.append(f'base: {error}')
        return path, {}


def _duplicate_keys(file: Path) -> list[str]:
    """Find the keys that stand twice in one dict of the file, of which Python silently keeps the last."""
    try:
        tree = ast.parse(file.read_text(encoding='utf-8'))
    except SyntaxError:
        return []  # loading it says so
    problems = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Dict):
            continue
        keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
        for key in sorted({key for key in keys if keys.count(key) > 1}, key=str):
            problems.append(f'keys of a dict must be different, got {key!r} twice (line {node.lineno})')
    return problems


def _check_numbers(values: Mapping[str, Any], problems: list[str]) -> None:
    if not isinstance(values['objective'], str) or not values['objective']:
        problems.append(f'objective must be the name of a logged metric, got {values["objective"]!r}')
    if values['direction'] not in ('maximize', 'minimize'):
        problems.append(f'direction must be maximize or minimize, got {values["direction"]!r}')
    for name, lowest in (('n_trials', 1), ('seed', 0), ('max_retries', 0)):
        if type(values[name]) is not int or values[name] < lowest:
            problems.append(f'{name} must be an integer from {lowest}, got {values[name]!r}')
    if type(values['heartbeat_s']) not in (int, float) or not 0 < values['heartbeat_s'] <= 3600:
        problems.append(f'heartbeat_s must be above 0 and at most 3600 seconds, got {values["heartbeat_s"]!r}')


def _built(module: Any, spec: Mapping[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
        return getattr(module, spec['type'])(**{key: value for key, value in spec.items() if key != 'type'})


def _check_built(name: str, module: Any, spec: Any, known: tuple[str, ...], problems: list[str]) -> None:
    if not isinstance(spec, Mapping) or spec.get('type') not in known:
        problems.append(f'{name} must be a dict with a type of {", ".join(known)}, got {spec!r}')
        return
    if name == 'sampler' and 'seed' in spec:
        problems.append(f'sampler must leave its seed to the search space, got {spec!r}; set seed')
        return
    try:
        _built(module, spec)
        if spec['type'] == 'HyperbandPruner':  # it looks at these two only when it first prunes
            shared = {key: spec[key] for key in ('min_resource', 'reduction_factor') if key in spec}
            optuna.pruners.SuccessiveHalvingPruner(**shared)
    except (TypeError, ValueError, ImportError) as error:
        problems.append(f'{name} must fit {spec["type"]}, got {spec!r}: {error}')


def _check_fixed(fixed: list[Assignment], parameters: tuple[Parameter | Choice, ...], problems: list[str]) -> None:
    """Add a problem for each fixed setting that a parameter would overwrite."""
    for parameter in parameters:
        for path in parameter.touched():
            if any(path == other[: len(path)] for other, _ in fixed):
                where = '.'.join(map(str, path))
                problems.append(f'fixed must leave {where} to parameters[{parameter.name!r}], got a value')
