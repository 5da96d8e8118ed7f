"""The full models on random weights: their files say what they say."""

from pathlib import Path

import pytest
from varied_weights import write_varied_weights

from armbench_mmdet.configs import load_config
from armbench_mmdet.export.onnx import export
from armbench_mmdet.inference import Detector

SWIN = 'mask2former_swin-b-p4-w12-384-in21k_8xb2-lsj-50e_armbench-mix'


def detector_of(name: str, folder: Path) -> Detector:
    config = load_config(name)
    config.model.backbone.init_cfg = None
    config.test_dataloader.update(num_workers=0, persistent_workers=False)
    config.test_dataloader.dataset.pipeline[1].scale = (320, 256)
    return Detector(config, write_varied_weights(config, folder / 'weights.pth'), 'cpu')


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ('name', 'size'),
    [
        ('mask-rcnn_r50_fpn_1x_armbench-mix', (256, 320)),
        ('mask-rcnn_r50_fpn_1x_armbench-mix', None),
        (SWIN, (256, 320)),
        (SWIN, None),
    ],
)
def test_the_file_says_what_the_model_says(
    name: str, size: tuple[int, int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('armbench_mmdet.export.onnx.CHECK_IMAGES', 2)
    parity = export(detector_of(name, tmp_path), tmp_path / 'model.onnx', size)
    assert parity.faults == []
    assert parity.instances >= 100
