"""Models of random weights, and their exported files."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from small_models import LEAVES
from varied_weights import SIZE, write_varied_weights

from armbench_mmdet.configs import load_config
from armbench_mmdet.inference import Detector

# The extra `onnx` of the package.
collect_ignore_glob = [] if importlib.util.find_spec('onnxscript') else ['test_*.py']


@pytest.fixture(scope='session')
def detectors(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Detector]:
    """A detector by ``mask_rcnn`` or ``mask2former``, which are small, or by the name of a config."""
    folder = tmp_path_factory.mktemp('models')

    def make(name: str) -> Detector:
        config = load_config(LEAVES.get(name, name))
        config.model.backbone.init_cfg = None
        config.test_dataloader.update(num_workers=0, persistent_workers=False)
        if name not in LEAVES:
            config.test_dataloader.dataset.pipeline[1].scale = (320, 256)
        return Detector(config, write_varied_weights(config, folder / f'{name}.pth'), 'cpu')

    return make


@pytest.fixture(scope='session')
def photos(minibench_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, two of :data:`SIZE`, an upright and a wide one."""
    folder = tmp_path_factory.mktemp('photos')
    paths = sorted((minibench_root / 'mix-object-tote/images').glob('*.jpg'))
    for number, (height, width) in enumerate((SIZE, SIZE, SIZE[::-1], (72, 160))):
        Image.open(paths[number]).resize((width, height)).save(folder / f'{number}.jpg')
    return folder


@pytest.fixture(scope='session')
def mask_rcnn(detectors: Callable[[str], Detector], photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mask R-CNN's file for images of one size, which says what the model says."""
    from armbench_mmdet.export.onnx import export

    file = tmp_path_factory.mktemp('exported') / 'mask_rcnn.onnx'
    export(detectors('mask_rcnn'), file, SIZE, [str(photos)])
    return file
