"""What the tests of inference share."""

from pathlib import Path

import pytest
from mmengine.config import Config
from small_models import untrained


@pytest.fixture(scope='session')
def mask_rcnn(minibench_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A Mask R-CNN's config and checkpoint."""
    return untrained('mask_rcnn', minibench_root, tmp_path_factory.mktemp('mask_rcnn'))
