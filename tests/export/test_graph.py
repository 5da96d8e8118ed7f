"""Parts of the graph: in onnxruntime what they are in PyTorch."""

import copy
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from armbench_mmdet.export.operators import TRANSLATIONS, pyramid_roi_align, suppressed
from armbench_mmdet.export.swin import trace_windows
from armbench_mmdet.models.swin import WindowedSwinTransformer


def exported(
    module: torch.nn.Module, inputs: dict[str, torch.Tensor], file: Path, shapes: dict | None = None
) -> onnxruntime.InferenceSession:
    with torch.no_grad():
        program = torch.export.export(module, tuple(inputs.values()), dynamic_shapes=shapes)
        torch.onnx.export(
            program, input_names=list(inputs), verbose=False, opset_version=18, custom_translation_table=TRANSLATIONS
        ).save(file)
    return onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])


def run(session: onnxruntime.InferenceSession, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]


def test_boxes_are_suppressed_as_by_the_model(tmp_path: Path) -> None:
    class Keep(torch.nn.Module):
        def forward(self, boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return suppressed(boxes, scores, 0.5, 60)

    torch.manual_seed(0)
    corners = torch.rand(400, 2) * 100
    inputs = {'boxes': torch.cat([corners, corners + 10 + torch.rand(400, 2) * 40], 1), 'scores': torch.rand(400)}
    inputs['scores'][:50] = -1
    kept = Keep()(**inputs)
    assert 10 < (kept > 0).sum() <= 60
    assert not kept[:50].any()
    np.testing.assert_array_equal(run(exported(Keep(), inputs, tmp_path / 'model.onnx'), inputs), kept.numpy())


def test_rois_are_pooled_as_by_the_model(tmp_path: Path) -> None:
    class Pool(torch.nn.Module):
        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            fine, coarse, rois, levels = inputs
            return pyramid_roi_align([fine, coarse], rois, levels, [0.25, 0.125], 7)

    torch.manual_seed(0)
    corners = torch.rand(30, 2) * 60
    inputs = {
        'fine': torch.randn(1, 4, 32, 40),
        'coarse': torch.randn(1, 4, 16, 20),
        'rois': torch.cat([corners, corners + torch.rand(30, 2) * 90], 1),
        'levels': torch.randint(0, 2, (30,)),
    }
    expected = Pool()(*inputs.values())
    shapes = {'inputs': tuple({} for _ in inputs)}
    session = exported(Pool(), inputs, tmp_path / 'model.onnx', shapes)
    np.testing.assert_allclose(run(session, inputs), expected.numpy(), atol=1e-5)


def test_windows_are_those_of_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {'embed_dims': 24, 'depths': (2, 2), 'num_heads': (2, 4), 'strides': (4, 2), 'out_indices': (1,)}
    model = WindowedSwinTransformer(**shape, window_size=4)
    model.eval()
    traced = copy.deepcopy(model)
    trace_windows(traced)
    sizes = {2: 8 * torch.export.Dim('rows', min=2, max=99), 3: 8 * torch.export.Dim('columns', min=2, max=99)}
    session = exported(traced, {'x': torch.zeros(1, 3, 72, 56)}, tmp_path / 'model.onnx', {'x': sizes})
    for height, width in ((40, 72), (72, 40), (104, 136)):
        image = torch.randn(1, 3, height, width)
        with torch.no_grad():
            expected = model(image)[0].numpy()
        np.testing.assert_allclose(run(session, {'x': image}), expected, atol=1e-4)
