"""The search space: a config file of ranges."""

from __future__ import annotations

import ast
import difflib
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
import numpy as np
import optuna
from msgspec import Meta
from optuna.trial import BaseTrial, FixedTrial

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.overrides import Assignment, KeyPath, applied, assignments, find, fitting, read, resolved

SAMPLERS = ('TPESampler', 'RandomSampler', 'GPSampler')
PRUNERS = (
    *('NopPruner', 'MedianPruner', 'PercentilePruner', 'ThresholdPruner'),
    *('SuccessiveHalvingPruner', 'HyperbandPruner'),
)


_Name = Annotated[str, Meta(min_length=1)]
_Direction = Literal['maximize', 'minimize']


class _Searched(msgspec.Struct, forbid_unknown_fields=True, tag_field='type', kw_only=True):
    """A value that is searched; its name is its key unless ``paths`` names others."""

    paths: list[str] | None = None


class _Float(_Searched, tag='float'):
    low: float
    high: float
    log: bool = False
    step: float | None = None

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)


class _Int(_Searched, tag='int'):
    low: int
    high: int
    log: bool = False
    step: int = 1

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        return trial.suggest_int(name, self.low, self.high, log=self.log, step=self.step)


class _Categorical(_Searched, tag='categorical'):
    choices: Annotated[list[bool | int | float | str | None], Meta(min_length=2)]

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        return trial.suggest_categorical(name, self.choices)


class _Bundle(msgspec.Struct, forbid_unknown_fields=True):
    overrides: dict[str, Any] = {}
    parameters: dict[str, Any] = {}


class _Choice(msgspec.Struct, forbid_unknown_fields=True, tag_field='type', tag='choice'):
    choices: Annotated[dict[str, _Bundle], Meta(min_length=2)]


class SpaceFile(msgspec.Struct, kw_only=True):
    """What stands in a search space's file.

    Attributes:
        objective: A metric of a validation, or several, with as many directions: then the outcome is a Pareto front.
        constraints: Upper limits of metrics; a trial above one is not the best.
        enqueue: Values of parameters, by name, that are tried first; parameters left out are sampled.
        seed: Of the sampler; a trial's draws depend on it, on the trial's number and on the trials before.
        max_retries: How often the parameters of a trial that was lost are tried again.
        heartbeat_s: Seconds between two signs of life of a running trial.
    """

    base: str
    parameters: Annotated[dict[str, Any], Meta(min_length=1)]
    objective: _Name | Annotated[list[_Name], Meta(min_length=1)] = 'coco/segm_mAP'
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


@dataclass(frozen=True)
class Parameter:
    """One value that is searched, for one setting of the config or for several that go together.

    Attributes:
        settings: Where the value goes, each with the base config's value.
    """

    name: str
    settings: tuple[Assignment, ...]
    spec: _Float | _Int | _Categorical

    def suggest(self, trial: BaseTrial) -> list[Assignment]:
        """Let the trial's sampler choose a value, and return what it changes."""
        value = self.spec.suggest(trial, self.name)
        return [(path, fitting(old, value, self.name)) for path, old in self.settings]

    def touched(self) -> set[KeyPath]:
        """Return the settings it may change."""
        return {path for path, _ in self.settings}

    def searched(self) -> dict[str, Callable[[BaseTrial], Any]]:
        """Return what lets a trial choose, by the name that Optuna knows."""
        return {self.name: self.suggest}


@dataclass(frozen=True)
class Choice:
    """One of several named bundles of settings, each with parameters of its own.

    Attributes:
        bundles: What each choice sets.
        parameters: What is searched only under that choice.
    """

    name: str
    bundles: Mapping[str, Sequence[Assignment]]
    parameters: Mapping[str, Sequence[Parameter | Choice]]

    def suggest(self, trial: BaseTrial) -> list[Assignment]:
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

    def searched(self) -> dict[str, Callable[[BaseTrial], Any]]:
        """Return what lets a trial choose, by the name that Optuna knows: the choice, and what is under it."""
        own = {self.name: lambda trial: trial.suggest_categorical(self.name, list(self.bundles))}
        return own | {n: one for group in self.parameters.values() for p in group for n, one in p.searched().items()}


@dataclass(frozen=True)
class Space:
    """A checked search space.

    Attributes:
        file: The file it was read from.
        given: What stands in it.
        base: The base config's file.
        base_config: The base config, resolved.
        fixed: Settings that differ from the base in every trial.
        parameters: What is searched.
    """

    file: Path
    given: SpaceFile
    base: Path
    base_config: dict[str, Any]
    fixed: Sequence[Assignment]
    parameters: Sequence[Parameter | Choice]

    def sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Return the sampler of one trial; every trial has its own random stream, whoever runs it."""
        seed = int(np.random.SeedSequence([self.given.seed, number]).generate_state(1)[0])
        return _built(optuna.samplers, {**self.given.sampler, 'seed': seed})

    def pruner(self) -> optuna.pruners.BasePruner:
        """Return the pruner; its steps are validations, the first being 1. Several objectives have none."""
        return _built(optuna.pruners, self.given.pruner if len(self.given.objectives) == 1 else {'type': PRUNERS[0]})

    def config(self, trial: BaseTrial, with_fixed: bool = True) -> dict[str, Any]:
        """Let the trial's sampler choose, and return the resolved config of the trial, or without what is fixed."""
        changes = [*self.fixed] if with_fixed else []
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
    content = {key: value for key, value in resolved(file).items() if not key.startswith('_')}  # _names are for help
    problems = _duplicate_keys(file)
    values = _checked(content, problems)
    for name, module, known in (('sampler', optuna.samplers, SAMPLERS), ('pruner', optuna.pruners, PRUNERS)):
        _check_built(name, module, values.get(name, {'type': known[0]}), known, problems)
    base, config = Path(os.path.normpath(file.parent / values.get('base', ''))), {}
    fixed: list[Assignment] = []
    parameters: list[Parameter | Choice] = []
    try:
        config = resolved(base) if 'base' in values else {}
    except InputError as error:
        problems.append(f'base: {error}')
    if config:
        fixed = _parse_overrides(values.get('fixed', {}), config, problems, 'fixed')
        parameters = _parse_parameters(values.get('parameters', {}), applied(config, fixed), problems)
        _check_overlaps(parameters, fixed, problems)
    _check_objectives(values, problems)
    _check_enqueued(values, parameters, problems)
    if problems:
        count = '1 problem' if len(problems) == 1 else f'{len(problems)} problems'
        raise InputError(f'search space must be free of problems, got {count} (in {file}):\n  ' + '\n  '.join(problems))
    return Space(file, SpaceFile(**values), base, config, fixed, parameters)


def _checked(content: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The values of the file that are what they must be."""
    defaults = {field.name: field for field in msgspec.structs.fields(SpaceFile)}
    for key in content.keys() - defaults.keys():
        near = difflib.get_close_matches(key, defaults, n=1)
        hint = f'; did you mean {near[0]}?' if near else f'; a search space has {", ".join(defaults)}'
        problems.append(f'key must be one of a search space, got {key!r}{hint}')
    values: dict[str, Any] = {}
    for name, kind in get_type_hints(SpaceFile, include_extras=True).items():
        if name not in content and defaults[name].required:
            problems.append(f'{name} must be given, got nothing')
            continue
        try:
            values |= {name: msgspec.convert(content[name], kind)} if name in content else {}
        except msgspec.ValidationError as error:
            problems.append(f'{name} must be {_constraint(error)}, got {content[name]!r}')
    return values


def _constraint(error: msgspec.ValidationError) -> str:
    return str(error).removeprefix('Expected ').replace('`', '')


def _parse_parameters(
    specs: Mapping[str, Any], config: Mapping[str, Any], problems: list[str], prefix: str = ''
) -> list[Parameter | Choice]:
    """Read the ``parameters`` of a search space or of one choice in it; what is wrong is added to ``problems``."""
    found: list[Parameter | Choice] = []
    for name, spec in specs.items():
        try:
            parsed = msgspec.convert(spec, _Float | _Int | _Categorical | _Choice)
            if isinstance(parsed, _Choice):
                found.append(_choice(prefix + name, parsed, config, problems))
            else:
                found.append(_parameter(name, parsed, config, prefix))
        except msgspec.ValidationError as error:
            problems.append(f'parameters[{prefix + name!r}] must be {_constraint(error)}, got {spec!r}')
        except (InputError, ValueError) as error:  # Optuna's of empty ranges, logarithms of zero and the like
            problems.append(f'parameters[{prefix + name!r}]: {error}')
    return found


def _parameter(name: str, spec: _Float | _Int | _Categorical, config: Mapping[str, Any], prefix: str) -> Parameter:
    if isinstance(spec, _Categorical):
        extremes: Sequence[Any] = spec.choices
    else:
        extremes = (spec.low, spec.high)
        if not math.isfinite(spec.low) or not spec.low < spec.high < math.inf:
            raise InputError(f'low and high must be finite and low < high, got {spec.low!r} and {spec.high!r}')
    settings = tuple((path, read(config, path)) for key in spec.paths or [name] for path in find(config, key))
    for path, old in settings:
        for value in extremes:
            fitting(old, value, '.'.join(map(str, path)))
    spec.suggest(FixedTrial({name: extremes[0]}), name)  # Optuna's own checks
    return Parameter(prefix + name, settings, spec)


def _choice(name: str, spec: _Choice, config: Mapping[str, Any], problems: list[str]) -> Choice:
    bundles: dict[str, list[Assignment]] = {}
    parameters: dict[str, list[Parameter | Choice]] = {}
    for choice, bundle in spec.choices.items():
        where = f'parameters[{name!r}][{choice!r}]'
        bundles[choice] = _parse_overrides(bundle.overrides, config, problems, where)
        within = applied(config, bundles[choice])
        parameters[choice] = _parse_parameters(bundle.parameters, within, problems, f'{name}.{choice}.')
        _check_overlaps(parameters[choice], [], problems)
    return Choice(name, bundles, parameters)


def _parse_overrides(
    overrides: Mapping[str, Any], config: Mapping[str, Any], problems: list[str], name: str
) -> list[Assignment]:
    """Read a dict of settings, dotted key → value; what is wrong is added to ``problems``."""
    changes: list[Assignment] = []
    for key, value in overrides.items():
        try:
            changes += assignments(config, key, value)
        except InputError as error:
            problems.append(f'{name}: {error}')
    return changes


def _check_overlaps(parameters: Sequence[Parameter | Choice], fixed: Sequence[Assignment], problems: list[str]) -> None:
    """Add a problem for each two parameters that set the same thing, and for fixed settings that one overwrites."""
    for index, first in enumerate(parameters):
        for second in parameters[index + 1 :]:
            common = [
                min(a, b, key=len)
                for a in first.touched()
                for b in second.touched()
                if a[: len(b)] == b or b[: len(a)] == a
            ]
            if common:
                where, names = '.'.join(map(str, common[0])), f'{first.name!r} and {second.name!r}'
                problems.append(f'parameters must set different things, got {names}: both set {where}')
        for path, _ in fixed:
            if any(path[: len(own)] == own for own in first.touched()):
                where = '.'.join(map(str, path))
                problems.append(f'fixed must leave {where} to parameters[{first.name!r}], got a value')


def _check_objectives(values: Mapping[str, Any], problems: list[str]) -> None:
    objective, direction = values.get('objective', ''), values.get('direction', 'maximize')
    counts = [1 if isinstance(one, str) else len(one) for one in (objective, direction)]
    if counts[0] != counts[1]:
        problems.append(f'direction must be one for each objective, {counts[0]}, got {direction!r}')


def _check_enqueued(values: Mapping[str, Any], parameters: Sequence[Parameter | Choice], problems: list[str]) -> None:
    """Add a problem for each value that no trial could have."""
    known = {name: spec for parameter in parameters for name, spec in parameter.searched().items()}
    for index, row in enumerate(values.get('enqueue', ())):
        for name, value in row.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f'did you mean {near[0]}?' if near else f'they are {", ".join(known)}'
                problems.append(f'enqueue[{index}] must name parameters, got {name!r}; {hint}')
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter('error', UserWarning)  # Optuna's of a number out of the range
                    known[name](FixedTrial({name: value}))
            except (ValueError, TypeError, UserWarning) as error:
                problems.append(f'enqueue[{index}][{name!r}]: {error}')


def _duplicate_keys(file: Path) -> list[str]:
    """The keys that stand twice in one dict of the file, of which Python silently keeps the last."""
    problems = []
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        keys = [key.value for key in getattr(node, 'keys', ()) if isinstance(key, ast.Constant)]
        for key in dict.fromkeys(key for key in keys if keys.count(key) > 1):
            problems.append(f'keys of a dict must be different, got {key!r} twice (line {node.lineno})')  # type: ignore[attr-defined]
    return problems


def quiet_optuna() -> None:
    """Hide what Optuna says of what it tries out, of its heartbeat outside of its own loop, and of each trial."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings('ignore', category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings('ignore', message='Heartbeat of storage is supposed to be used with')


def _built(module: Any, spec: Mapping[str, Any]) -> Any:
    quiet_optuna()
    return getattr(module, spec['type'])(**{key: value for key, value in spec.items() if key != 'type'})


def _check_built(name: str, module: Any, spec: Mapping[str, Any], known: Sequence[str], problems: list[str]) -> None:
    if spec.get('type') not in known:
        problems.append(f'{name} must be a dict with a type of {", ".join(known)}, got {spec!r}')
        return
    if 'seed' in spec:
        problems.append(f'{name} must leave its seed to the search space, got {spec!r}; set seed')
        return
    try:
        _built(module, spec)
        if spec['type'] == 'HyperbandPruner':  # it looks at these two only when it first prunes
            shared = {key: spec[key] for key in ('min_resource', 'reduction_factor') if key in spec}
            optuna.pruners.SuccessiveHalvingPruner(**shared)
    except (TypeError, ValueError, ImportError) as error:
        problems.append(f'{name} must fit {spec["type"]}, got {spec!r}: {error}')
