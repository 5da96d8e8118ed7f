"""Parts of the graph: in onnxruntime what they are in PyTorch."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from mmcv.ops import nms, roi_align
from torch import Tensor

from armbench_mmdet.export.mask2former import make_traceable
from armbench_mmdet.export.mask_rcnn import OPERATORS, TRANSLATIONS
from armbench_mmdet.models.swin import WindowedSwinTransformer


class Calling(torch.nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def exported(
    function: Callable[..., Tensor], inputs: list[Tensor], file: Path, shapes: dict | None = None
) -> Callable[..., np.ndarray]:
    with torch.no_grad():
        program = torch.export.export(Calling(function), tuple(inputs), dynamic_shapes=shapes and {'inputs': (shapes,)})
        torch.onnx.export(program, verbose=False, opset_version=18, custom_translation_table=TRANSLATIONS).save(file)
    session = onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
    names = [one.name for one in session.get_inputs()]
    return lambda *values: session.run(None, {n: v.numpy() for n, v in zip(names, values, strict=True)})[0]


def test_boxes_are_suppressed_as_by_the_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    corners = torch.rand(400, 2) * 100
    boxes, scores = torch.cat([corners, corners + 10 + torch.rand(400, 2) * 40], 1), torch.rand(400)
    scores[:50] = -1
    expected = nms(boxes[50:], scores[50:], 0.5)[1][:60] + 50
    run = exported(lambda *inputs: OPERATORS.nms(*inputs, 0.5, 60), [boxes, scores], tmp_path / 'model.onnx')
    np.testing.assert_array_equal(run(boxes, scores), expected.numpy())
    assert len(expected) > 10


def test_rois_are_pooled_as_by_the_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    maps, corners = [torch.randn(1, 4, 32, 40), torch.randn(1, 4, 16, 20)], torch.rand(30, 2) * 60
    rois, levels = torch.cat([corners, corners + torch.rand(30, 2) * 90], 1), torch.randint(0, 2, (30,))
    indexed = torch.nn.functional.pad(rois, (1, 0))
    of_levels = [
        roi_align(one, indexed, 7, scale, 0, 'avg', True) for one, scale in zip(maps, (0.25, 0.125), strict=True)
    ]
    expected = torch.where(levels[:, None, None, None] > 0, of_levels[1], of_levels[0])
    run = exported(
        lambda fine, coarse, *rest: OPERATORS.roi_align([fine, coarse], *rest, [0.25, 0.125], 7),
        [*maps, rois, levels],
        tmp_path / 'model.onnx',
    )
    np.testing.assert_allclose(run(*maps, rois, levels), expected.numpy(), atol=1e-5)


def test_windows_are_those_of_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {'embed_dims': 24, 'depths': (2, 2), 'num_heads': (2, 4), 'strides': (4, 2), 'out_indices': (1,)}
    model = WindowedSwinTransformer(**shape, window_size=4)
    model.eval()
    traced = copy.deepcopy(model)
    make_traceable(traced)
    sizes = {2: 8 * torch.export.Dim('rows', min=2, max=99), 3: 8 * torch.export.Dim('columns', min=2, max=99)}
    run = exported(traced, [torch.zeros(1, 3, 72, 56)], tmp_path / 'model.onnx', sizes)
    for height, width in ((40, 72), (72, 40), (104, 136)):
        image = torch.randn(1, 3, height, width)
        with torch.no_grad():
            np.testing.assert_allclose(run(image), model(image)[0].numpy(), atol=1e-4)
