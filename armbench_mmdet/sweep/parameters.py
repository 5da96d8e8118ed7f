"""The parameters of a search space: ranges, options, and named choices that bring settings and parameters along."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.keys import Assignment, Key, Path, assignments, find, fitting, read
from armbench_mmdet.sweep.overrides import applied

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

    def touched(self) -> set[Path]:
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

    def touched(self) -> set[Path]:
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


def _check_overlaps(touched: Mapping[str, set[Path]], problems: list[str]) -> None:
    """Add a problem for each two parameters that set the same thing."""
    names = list(touched)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            common = [a for a in touched[first] for b in touched[second] if a[: len(b)] == b or b[: len(a)] == a]
            if common:
                where = '.'.join(map(str, min(common, key=lambda path: len(tuple(path)))))
                problems.append(f'parameters must set different things, got {first!r} and {second!r}: both set {where}')
