"""An exported file says what the model says, or there is none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from varied_weights import SIZE, Exported

from armbench_mmdet.datasets.images import find_images
from armbench_mmdet.errors import InputError
from armbench_mmdet.export.mask_rcnn import OPERATORS, TRANSLATIONS
from armbench_mmdet.export.onnx import compare, export
from armbench_mmdet.inference import Detector
from armbench_runtime import Detector as ExportedDetector

NMS = OPERATORS.nms.default


@pytest.fixture(scope='module')
def truth(minibench_root: Path) -> str:
    return str(minibench_root / 'mix-object-tote/test.json')


@pytest.mark.parametrize(
    ('name', 'size'),
    [
        ('mask2former', SIZE),
        pytest.param('mask_rcnn', None, marks=pytest.mark.slow),
        pytest.param('mask2former', None, marks=pytest.mark.slow),
    ],
)
def test_the_file_says_what_the_model_says(
    name: str,
    size: tuple[int, int] | None,
    detectors: Callable[[str], Detector],
    truth: str,
    tmp_path: Path,
) -> None:
    parity = export(detectors(name), tmp_path / 'model.onnx', size, [truth])
    assert parity.faults == []
    assert parity.instances >= 100
    assert 'AP within' in parity.line
    assert list(tmp_path.iterdir()) == [tmp_path / 'model.onnx']


def test_every_difference_is_seen(mask_rcnn: Exported, truth: str) -> None:
    (one,) = ExportedDetector.from_onnx(mask_rcnn.file).predict(find_images(truth).paths[0])
    assert compare([one], [one]).faults == []
    assert compare([one], [one]).line.startswith(f'{len(one)} instances of 1 images compared: scores within 0')
    fewer, surer, moved = (
        one.above(float(one.scores[1])),
        replace(one, scores=one.scores + np.float32(0.01)),
        replace(one, masks=one.masks[:1] * len(one)),
    )
    for changed, fault in ((surer, 'scores differ by up to 0.01'), (moved, 'masks overlap by as little as IoU')):
        assert fault in compare([one], [changed]).faults[0]
    assert (
        compare([fewer], [one]).faults[-1].startswith('this proves nothing: 2 instances were compared, needed are 20')
    )
    without_best = replace(one, **{key: getattr(one, key)[1:] for key in ('boxes', 'scores', 'labels', 'masks')})
    assert '1 instances have no counterpart' in compare([one], [without_best]).faults


@pytest.mark.slow
def test_a_file_that_differs_is_not_written_and_says_where(
    mask_rcnn: Exported, truth: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_suppression(boxes: Any, scores: Any, iou_threshold: float, limit: int) -> Any:
        return TRANSLATIONS[NMS](boxes, scores, 1.0, limit)

    monkeypatch.setattr('armbench_mmdet.export.onnx.TRANSLATIONS', {**TRANSLATIONS, NMS: without_suppression})
    out, check = tmp_path / 'a/model.onnx', [truth]
    with pytest.raises(InputError, match=r'model says, got: .*first diverging stage: roi_head.bbox_head .*force'):
        export(mask_rcnn.detector, out, SIZE, check=check)
    assert list(out.parent.iterdir()) == []
    assert export(mask_rcnn.detector, out, SIZE, check=check, force=True).faults
    assert out.is_file()
