"""The search space: a config file of ranges."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import optuna
from msgspec import Meta
from optuna.trial import BaseTrial, FixedTrial

from armbench_mmdet.configs import load_config
from armbench_mmdet.errors import InputError, nearest
from armbench_mmdet.sweep.overrides import Assignment, applied, assignments, find, fitting, read

_Direction = Literal['maximize', 'minimize']


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
class Parameter:
    """One value that is searched.

    Attributes:
        name: Optuna's name of it.
        kind: ``float``, ``int`` or ``categorical``.
        range: Optuna's arguments.
        settings: Where the value goes, each with the base config's value.
        bundles: What else a value changes, and the parameters that are searched only under it.
    """

    name: str
    kind: str
    range: Mapping[str, Any]
    settings: Sequence[Assignment] = ()
    bundles: Mapping[Any, tuple[Sequence[Assignment], Sequence['Parameter']]] = field(default_factory=dict)

    def value(self, trial: BaseTrial) -> Any:
        """Let the trial's sampler choose a value."""
        return getattr(trial, f'suggest_{self.kind}')(self.name, **self.range)

    def suggest(self, trial: BaseTrial) -> list[Assignment]:
        """Let the trial's sampler choose, and return what that changes."""
        value = self.value(trial)
        changes, parameters = self.bundles.get(value, ((), ()))
        own = [(path, fitting(old, value, '.'.join(map(str, path)))) for path, old in self.settings]
        return [*own, *changes, *(change for one in parameters for change in one.suggest(trial))]

    def within(self) -> Iterator['Parameter']:
        """Yield the parameter and those under its choices."""
        yield self
        for _, parameters in self.bundles.values():
            for parameter in parameters:
                yield from parameter.within()


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
    parameters: Sequence[Parameter]

    def sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Return the sampler of one trial; every trial has its own random stream, whoever runs it."""
        seed = int(np.random.SeedSequence([self.given.seed, number]).generate_state(1)[0])
        return _built(optuna.samplers, self.given.sampler, seed=seed)

    def pruner(self) -> optuna.pruners.BasePruner:
        """Return the pruner; its steps are validations, the first being 1. Several objectives have none."""
        return _built(optuna.pruners, self.given.pruner if len(self.given.objectives) == 1 else {'type': 'NopPruner'})

    def config(self, trial: BaseTrial, with_fixed: bool = True) -> dict[str, Any]:
        """Let the trial's sampler choose, and return the resolved config of the trial, or without what is fixed."""
        changes = [change for parameter in self.parameters for change in parameter.suggest(trial)]
        return applied(self.base_config, [*self.fixed, *changes] if with_fixed else changes)


def _built(module: Any, spec: Mapping[str, Any], **more: Any) -> Any:
    return getattr(module, spec.get('type', ''))(**{key: value for key, value in spec.items() if key != 'type'}, **more)


def load_space(path: str | Path) -> Space:
    """Read and check a search space.

    Args:
        path: The config file; ``base`` in it is relative to its folder.

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
    config, problems = load_config(base).to_dict(), list[str]()
    fixed = _assignments(given.fixed, config, 'fixed', problems)
    parameters = _parameters(given.parameters, applied(config, fixed), '', problems)
    space = Space(file, given, base, config, fixed, parameters)
    if len(given.directions) != len(given.objectives):
        problems.append(f'direction must be one for each objective, {given.objective}, got {given.direction!r}')
    with _noting(problems, f'sampler {given.sampler}'):
        space.sampler(0)
    with _noting(problems, f'pruner {given.pruner}'):
        space.pruner()
    known = {one.name: one for parameter in parameters for one in parameter.within()}
    for index, (name, value) in ((index, item) for index, row in enumerate(given.enqueue) for item in row.items()):
        with _noting(problems, f'enqueue[{index}]'):
            if name not in known:
                raise InputError(f'names must be those of parameters, got {name!r}{nearest(name, known)}')
            known[name].value(FixedTrial({name: value}))
    if problems:
        count = '1 problem' if len(problems) == 1 else f'{len(problems)} problems'
        raise InputError(f'search space must be free of problems, got {count} (in {file}):\n  ' + '\n  '.join(problems))
    return space


@contextmanager
def _noting(problems: list[str], where: str) -> Iterator[None]:
    """Add to ``problems`` what is raised within, our own and Optuna's, and the warnings of values out of a range."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error', UserWarning)
            yield
    except (InputError, AttributeError, ImportError, TypeError, ValueError, UserWarning, msgspec.MsgspecError) as error:
        problems.append(f'{where}: {error}')


def _assignments(
    overrides: Mapping[str, Any], config: Mapping[str, Any], where: str, problems: list[str]
) -> list[Assignment]:
    changes: list[Assignment] = []
    for key, value in overrides.items():
        with _noting(problems, where):
            changes += assignments(config, key, value)
    return changes


def _parameters(
    specs: Mapping[str, Mapping[str, Any]], config: Mapping[str, Any], prefix: str, problems: list[str]
) -> list[Parameter]:
    """Read the ``parameters`` of a search space or of one choice in it."""
    found: list[Parameter] = []
    for name, spec in specs.items():
        with _noting(problems, f'parameters[{prefix + name!r}]'):
            found.append(_parameter(name, dict(spec), config, prefix, problems))
    return found


def _parameter(
    name: str, spec: dict[str, Any], config: Mapping[str, Any], prefix: str, problems: list[str]
) -> Parameter:
    kind, own = spec.pop('type', None), prefix + name
    if kind == 'choice':
        bundles = {}
        for choice, bundle in msgspec.convert(spec.pop('choices', {}), dict[str, _Bundle]).items():
            changes = _assignments(bundle.overrides, config, f'parameters[{own!r}][{choice!r}]', problems)
            under = _parameters(bundle.parameters, applied(config, changes), f'{own}.{choice}.', problems)
            bundles[choice] = changes, under
        parameter = Parameter(own, 'categorical', {'choices': list(bundles), **spec}, bundles=bundles)
        parameter.value(FixedTrial({own: next(iter(bundles), None)}))
        return parameter
    if kind not in ('float', 'int', 'categorical'):
        raise InputError(f'type must be float, int, categorical or choice, got {kind!r}')
    keys = spec.pop('paths', [name])
    parameter = Parameter(own, kind, spec, [(path, read(config, path)) for key in keys for path in find(config, key)])
    for value in spec.get('choices', (spec.get('low'), spec.get('high'))):
        parameter.suggest(FixedTrial({own: value}))
    return parameter
