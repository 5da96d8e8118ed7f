"""The search space: a config file that says what is varied, and how."""

from __future__ import annotations

import ast
import difflib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.keys import Assignment
from armbench_mmdet.sweep.overrides import applied, check_bases, resolved
from armbench_mmdet.sweep.parameters import Choice, Parameter, parse_overrides, parse_parameters

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
