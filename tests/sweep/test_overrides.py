"""A trial's file: the base plus the changed leaves, written, reloaded and compared."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from armbench_mmdet.errors import InputError
from armbench_mmdet.sweep.overrides import (
    applied,
    difference,
    differing,
    resolved,
    write_base,
    write_overrides,
)

OLD: dict[str, Any] = {
    'optimizer': {'type': 'AdamW', 'lr': 1e-3, 'betas': (0.9, 0.999), 'fused': True},
    'keys': {'backbone.norm': {'lr_mult': 0.1}},
    'pipeline': [{'type': 'Load'}, {'type': 'Flip', 'prob': 0.5}],
    'clip': None,
    'name': "it's",
}
CASES = {
    'nothing': ([], {}),
    'leaf': ([(('optimizer', 'lr'), 0.1)], {'optimizer': {'lr': 0.1}}),
    'same value': ([(('optimizer', 'lr'), 1e-3)], {}),
    'key with a dot': ([(('keys', 'backbone.norm', 'lr_mult'), 1.0)], {'keys': {'backbone.norm': {'lr_mult': 1.0}}}),
    'in a list': (
        [(('pipeline', 1, 'prob'), 0.1)],
        {'pipeline': [{'type': 'Load'}, {'type': 'Flip', 'prob': 0.1}]},
    ),
    'in a tuple': ([(('optimizer', 'betas', 0), 0.8)], {'optimizer': {'betas': (0.8, 0.999)}}),
    'replaced dict': (
        [(('optimizer',), {'type': 'SGD', 'lr': 0.1, 'nested': {'a': 1}}), (('optimizer', 'lr'), 0.2)],
        {'optimizer': {'_delete_': True, 'type': 'SGD', 'lr': 0.2, 'nested': {'a': 1}}},
    ),
    'grown dict': (
        [(('keys',), {'backbone.norm': {'lr_mult': 0.1}, 'head': {'lr_mult': 1.0}})],
        {'keys': {'head': {'lr_mult': 1.0}}},
    ),
    'dict for None': ([(('clip',), {'max_norm': 1.0})], {'clip': {'_delete_': True, 'max_norm': 1.0}}),
    'None for a dict': ([(('keys',), None)], {'keys': None}),
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write_base(tmp_path, Path('original.py'), OLD)
    return tmp_path


@pytest.mark.parametrize(('changes', 'written'), CASES.values(), ids=CASES)
def test_only_what_differs_is_written_and_reloads_as_meant(study: Path, changes: list, written: dict) -> None:
    before = copy.deepcopy(OLD)
    new = applied(OLD, changes)
    assert before == OLD
    assert difference(OLD, new) == written
    write_overrides(study / 'trial.py', 'base.py', OLD, new, 'a note')
    assert resolved(study / 'trial.py') == new
    assert (study / 'trial.py').read_text().startswith("# a note\n_base_ = 'base.py'\n")


def test_a_file_that_reloads_differently_is_refused(study: Path) -> None:
    (study / 'base.py').write_text('clip = 3\n')
    with pytest.raises(InputError, match=r'must reload as written.*\n.*optimizer'):
        write_overrides(study / 'trial.py', 'base.py', OLD, OLD, '')


def test_the_study_folder_can_be_moved(study: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (study / 'trial_0000').mkdir()
    write_overrides(study / 'trial_0000/config.py', '../base.py', OLD, {**OLD, 'name': 'x'}, '')
    moved = tmp_path_factory.mktemp('moved') / 'study'
    study.rename(moved)
    assert resolved(moved / 'trial_0000/config.py') == {**OLD, 'name': 'x'}


def test_base_of_another_study_is_refused(study: Path) -> None:
    write_base(study, Path('original.py'), OLD)
    with pytest.raises(InputError, match=r"base\.py must be the base config of this study.*\n.*name: \"it's\" → 'x'"):
        write_base(study, Path('original.py'), {**OLD, 'name': 'x'})


def test_differing_names_every_leaf() -> None:
    old, new = {'a': {'b.c': 1, 'd': 2}, 'e': 1}, {'a': {'b.c': 2, 'f': 3}, 'e': 1.0}
    lines = ["a['b.c']: 1 → 2", 'a.d: 2 → nothing', 'a.f: nothing → 3', 'e: 1 → 1.0']
    assert list(differing(old, new)) == lines
