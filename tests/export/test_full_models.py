"""The full Mask R-CNN on random weights: its file says what it says."""

from pathlib import Path

import pytest
from varied_weights import write_varied_weights

from armbench_mmdet.configs import load_config
from armbench_mmdet.export import export
from armbench_mmdet.inference import Detector

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_file_says_what_the_model_says(tmp_path: Path) -> None:
    config = load_config(REPO / 'configs/mask_rcnn/mask-rcnn_r50_fpn_1x_armbench-mix.py')
    config.model.backbone.init_cfg = None
    config.test_dataloader.update(num_workers=0, persistent_workers=False)
    detector = Detector(config, write_varied_weights(config, tmp_path / 'weights.pth'), 'cpu')
    parity = export(detector, tmp_path / 'model.onnx', (256, 320))
    assert parity.faults == []
    assert parity.instances >= 50 * parity.images
