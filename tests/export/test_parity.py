"""An exported file says what the model says, or there is none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from varied_weights import SIZE

from armbench_mmdet.errors import InputError
from armbench_mmdet.export.mask_rcnn import OPERATORS, TRANSLATIONS
from armbench_mmdet.export.onnx import compare, export
from armbench_mmdet.inference import Detector
from armbench_runtime import Detector as ExportedDetector

NMS = OPERATORS.nms.default
SLOW = [pytest.mark.slow, pytest.mark.timeout(1800)]
FULL = ('mask-rcnn_r50_fpn_1x_armbench-mix', 'mask2former_swin-b-p4-w12-384-in21k_8xb2-lsj-50e_armbench-mix')


@pytest.mark.parametrize(
    ('name', 'size'),
    [
        ('mask2former', SIZE),
        *(pytest.param(name, None, marks=SLOW) for name in ('mask_rcnn', 'mask2former', *FULL)),
        *(pytest.param(name, (256, 320), marks=SLOW) for name in FULL),
    ],
)
def test_the_file_says_what_the_model_says(
    name: str, size: Any, detectors: Callable[[str], Detector], photos: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr('armbench_mmdet.export.onnx.CHECK_IMAGES', 2)
    parity = export(detectors(name), tmp_path / 'model.onnx', size, None if size == (256, 320) else [str(photos)])
    assert parity.faults == []
    assert parity.instances >= 100
    assert list(tmp_path.iterdir()) == [tmp_path / 'model.onnx']


def test_every_difference_is_seen(mask_rcnn: Path, photos: Path) -> None:
    (one,) = ExportedDetector.from_onnx(mask_rcnn).predict(photos / '0.jpg')
    assert compare([one], [one]).faults == []
    assert compare([one], [one]).line.startswith(f'{len(one)} instances of 1 images compared: scores within 0')
    without_best = replace(one, **{key: getattr(one, key)[1:] for key in ('boxes', 'scores', 'labels', 'masks')})
    for expected, changed, fault in (
        (one, replace(one, scores=one.scores + np.float32(0.01)), 'scores differ by up to 0.0'),
        (one, replace(one, masks=one.masks[:1] * len(one)), 'masks overlap by as little as IoU'),
        (one, without_best, '1 instances have no counterpart'),
        (one.above(float(one.scores[1])), one, 'this proves nothing: '),
    ):
        assert any(said.startswith(fault) for said in compare([expected], [changed]).faults), fault


@pytest.mark.slow
def test_a_file_that_differs_is_not_written_unless_it_must(
    detectors: Callable[[str], Detector], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_suppression(boxes: Any, scores: Any, iou_threshold: float, limit: int) -> Any:
        return TRANSLATIONS[NMS](boxes, scores, 1.0, limit)

    monkeypatch.setattr('armbench_mmdet.export.onnx.TRANSLATIONS', {**TRANSLATIONS, NMS: without_suppression})
    detector, out, check = detectors('mask_rcnn'), tmp_path / 'a/model.onnx', [str(photos)]
    with pytest.raises(InputError, match=r'model says, got: .* \(worst on .*\.jpg\); nothing is written.*force'):
        export(detector, out, SIZE, check=check)
    assert list(out.parent.iterdir()) == []
    assert export(detector, out, SIZE, check=check, force=True).faults
    assert out.is_file()
