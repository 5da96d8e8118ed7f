"""An exported file says what the model says, or there is none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch
from varied_weights import SIZE, Exported

from armbench_mmdet.datasets.images import FoundImages, find_images
from armbench_mmdet.errors import InputError
from armbench_mmdet.export import export
from armbench_mmdet.export.graph import DetectorGraph
from armbench_mmdet.export.operators import TRANSLATIONS
from armbench_mmdet.export.parity import EXACT, Parity, compare
from armbench_mmdet.inference import Detector
from armbench_runtime import Detector as ExportedDetector

NMS = torch.ops.armbench.nms_kept.default


@pytest.fixture(scope='module')
def truth(minibench_root: Path) -> str:
    return str(minibench_root / 'mix-object-tote/test.json')


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('mask2former', {'size': SIZE}),
        pytest.param('mask_rcnn', {'dynamic': True}, marks=pytest.mark.slow),
        pytest.param('mask2former', {'dynamic': True, 'half': True}, marks=pytest.mark.slow),
        pytest.param('mask_rcnn', {'size': SIZE, 'resizing': 'outside'}, marks=pytest.mark.slow),
    ],
)
def test_the_file_says_what_the_model_says(
    name: str, options: dict, detectors: Callable[[str], Detector], truth: str, tmp_path: Path
) -> None:
    detector = detectors(name)
    parity = export(detector, tmp_path / 'model.onnx', check=[truth], **options)
    assert parity.faults == []
    assert parity.instances >= 100
    assert parity.ap is not None
    exported = ExportedDetector.from_onnx(tmp_path / 'model.onnx')
    assert exported.classes == detector.classes
    assert exported.metadata['half'] == options.get('half', False)
    assert list(tmp_path.iterdir()) == [tmp_path / 'model.onnx']


def test_a_wrong_weight_is_seen(mask_rcnn: Exported, truth: str, tmp_path: Path) -> None:
    model = onnx_ir.load(mask_rcnn.file)
    biased = next(value for name, value in model.graph.initializers.items() if name.endswith('fc_cls.bias'))
    biased.const_value = onnx_ir.tensor(biased.const_value.numpy() + np.float32([0, 1, 0]), name=biased.name)
    onnx_ir.save(model, tmp_path / 'wrong.onnx')
    images = find_images(truth)
    fitting = FoundImages(images.paths[:1], images.ids[:1])
    parity = compare(mask_rcnn.detector, ExportedDetector.from_onnx(tmp_path / 'wrong.onnx'), fitting, EXACT)
    assert any('scores differ by up to 0' in fault for fault in parity.faults)


@pytest.mark.slow
def test_a_file_that_differs_is_not_written_and_says_where(
    mask_rcnn: Exported, truth: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_suppression(boxes: Any, scores: Any, iou_threshold: float, limit: int) -> Any:
        return TRANSLATIONS[NMS](boxes, scores, 1.0, limit)

    monkeypatch.setattr('armbench_mmdet.export.write.TRANSLATIONS', {**TRANSLATIONS, NMS: without_suppression})
    out, check = tmp_path / 'model.onnx', [truth]
    with pytest.raises(InputError, match=r'what the model says, got: .*first diverging stage: proposals .*force'):
        export(mask_rcnn.detector, out, SIZE, check=check)
    assert list(tmp_path.iterdir()) == []
    assert export(mask_rcnn.detector, out, SIZE, check=check, force=True).faults
    assert out.is_file()


def test_too_few_instances_prove_nothing() -> None:
    parity = Parity(19, 0, 0.0, 1.0, 3, Path('a.jpg'), None, EXACT)
    assert parity.faults == ['this proves nothing: 19 instances were compared, needed are 20']
    assert replace(parity, instances=20).faults == []


def test_what_the_file_is_for_must_be_said(mask_rcnn: Exported, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='--size HEIGHT WIDTH, --dynamic or --check IMAGES must say'):
        export(mask_rcnn.detector, tmp_path / 'model.onnx')
    with pytest.raises(InputError, match='OUT must lie in an existing folder'):
        export(mask_rcnn.detector, tmp_path / 'nowhere/model.onnx', SIZE)


def test_a_model_of_other_parts_is_refused(mask_rcnn: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherHead(type(mask_rcnn.detector.model.rpn_head)):
        pass

    monkeypatch.setattr(mask_rcnn.detector.model.rpn_head, '__class__', OtherHead)
    with pytest.raises(InputError, match=r"model\.rpn_head\.type must be RPNHead to be exported, got 'OtherHead'"):
        DetectorGraph(mask_rcnn.detector.model, None)
