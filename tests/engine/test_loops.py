from __future__ import annotations

from typing import Any

import pytest
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from armbench_mmdet.engine.loops import resumable


@pytest.mark.parametrize(
    ('settings', 'kind'),
    [
        ({'type': 'EpochBasedTrainLoop', 'max_epochs': 3}, 'ResumableEpochLoop'),
        ({'type': 'mmengine.IterBasedTrainLoop', 'max_iters': 3}, 'ResumableIterLoop'),
        ({'type': EpochBasedTrainLoop, 'max_epochs': 3}, 'ResumableEpochLoop'),
        ({'type': IterBasedTrainLoop, 'max_iters': 3}, 'ResumableIterLoop'),
        ({'by_epoch': True, 'max_epochs': 3}, 'ResumableEpochLoop'),
        ({'by_epoch': False, 'max_iters': 3}, 'ResumableIterLoop'),
        ({'type': 'SomebodysLoop'}, 'SomebodysLoop'),
    ],
)
def test_mmengines_loops_are_replaced(settings: dict[str, Any], kind: str) -> None:
    replaced = resumable(settings)
    assert replaced.pop('type') == kind
    assert replaced == {key: value for key, value in settings.items() if key not in ('type', 'by_epoch')}


def test_what_is_no_config_stays() -> None:
    loop = object()
    assert resumable(loop) is loop
