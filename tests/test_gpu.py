"""First aid on a machine with a GPU, ``make test-gpu``, in one table; its CPU half runs with the ordinary tests."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmcv.ops import nms, roi_align
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import init_default_scope
from processes import in_processes
from small_models import tiny_config
from torch import Tensor

from armbench_mmdet.configs import load_config
from armbench_mmdet.engine.checkpoints import find_checkpoint, load_weights
from armbench_mmdet.engine.distributed import joined_processes
from armbench_mmdet.launch import train
from armbench_mmdet.ops import active_backend

GPUS = torch.cuda.device_count()
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not GPUS, reason='needs a CUDA device')]
DEVICES = ['cpu', pytest.param('cuda', marks=ON_GPU)]
STEPS = [
    ('cpu', 'mask-rcnn_r18-w32_fpn-64_minibench', (128, 160)),
    ('cpu', 'mask2former_r18-w32_q30_minibench', (128, 160)),
    pytest.param('cuda', 'mask-rcnn_r50_fpn_1x_armbench-mix', (800, 1088), marks=ON_GPU),
    pytest.param('cuda', 'mask-rcnn_r50_fpn_torchvision_armbench-mix', (800, 1088), marks=ON_GPU),
    pytest.param('cuda', 'mask2former_swin-b-p4-w12-384-in21k_8xb2-lsj-50e_armbench-mix', (1024, 1024), marks=ON_GPU),
]
"""A device, a config, and the height and width of its input."""


@pytest.fixture(scope='module')
def table() -> Iterator[list[tuple[str, str, float, float]]]:
    """Rows of what, how, milliseconds and peak MB, which are printed in the end."""
    rows: list[tuple[str, str, float, float]] = []
    yield rows
    devices = ', '.join(torch.cuda.get_device_name(i) for i in range(GPUS)) or 'no GPU'
    print(f'\n\ntorch {torch.__version__}, {devices}\n{"":72} {"how":>16} {"ms":>9} {"peak MB":>9}')
    for what, how, milliseconds, megabytes in rows:
        print(f'{what:72} {how:>16} {milliseconds:9.1f} {megabytes:9.0f}')


def measured(device: str, work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a second call of some work gives, its milliseconds, and the most memory of the GPU meanwhile in MB."""
    wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
    work()
    wait()
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    result = work()
    wait()
    milliseconds = 1000 * (time.perf_counter() - start)
    return result, milliseconds, torch.cuda.max_memory_allocated() / 2**20 if device == 'cuda' else 0.0


def with_gradients(output: Tensor, *inputs: Tensor) -> list[Tensor]:
    output.backward(torch.linspace(-1, 1, output.numel()).to(output).view_as(output))
    return [output, *(one.grad for one in inputs)]


def suppressed(device: str) -> list[Tensor]:
    corners = torch.rand(3000, 2) * 400
    boxes = torch.cat([corners, corners + 5 + 60 * torch.rand(3000, 2)], 1)
    return [nms(boxes.to(device), (torch.randperm(3000) / 3000).to(device), 0.5)[1]]


def pooled(device: str) -> list[Tensor]:
    maps = torch.randn(2, 64, 50, 68).to(device).requires_grad_()
    corners = torch.rand(200, 2) * 200
    rois = torch.cat([torch.arange(200)[:, None] % 2, corners, corners + 4 + corners.flip(0) / 2], 1).to(device)
    return with_gradients(roi_align(maps, rois, 7, 0.25, 0, 'avg', True), maps)


def attended(device: str) -> list[Tensor]:
    shapes = torch.tensor([[32, 40], [16, 20], [8, 10]])
    keys = shapes.prod(1)
    # In double precision: where a sample meets a cell's edge, its gradient jumps, and roundings differ.
    value = torch.randn(2, int(keys.sum()), 8, 32).double()
    locations = torch.rand(2, 300, 8, 3, 4, 2).double() * 1.2 - 0.1
    weights = torch.rand(2, 300, 8, 3, 4).double()
    value, locations, weights = inputs = [one.to(device).requires_grad_() for one in (value, locations, weights)]
    starts = (keys.cumsum(0) - keys).to(device)
    attend = MultiScaleDeformableAttnFunction.apply
    return with_gradients(attend(value, shapes.to(device), starts, locations, weights, 64), *inputs)


OPERATORS = {'nms': suppressed, 'roi_align': pooled, 'ms_deform_attn': attended}
"""Operators, forwards and backwards where they have a gradient."""


@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize('device', DEVICES)
def test_operators_agree_with_the_cpus(device: str, operator: str, table: list) -> None:
    def work(place: str) -> list[Tensor]:
        torch.manual_seed(0)
        return OPERATORS[operator](place)

    results, milliseconds, megabytes = measured(device, lambda: work(device))
    for found, expected in zip(results, work('cpu'), strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)
    table.append((f'{operator} on {device}', active_backend(device)[operator], milliseconds, megabytes))


@pytest.mark.parametrize(('device', 'name', 'size'), STEPS)
def test_a_step_in_mixed_precision(device: str, name: str, size: tuple[int, int], table: list) -> None:
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(load_config(name).model).to(device).train()
    kind = torch.float16 if device == 'cuda' else torch.bfloat16

    def step() -> dict[str, Tensor]:
        model.zero_grad()
        data = demo_mm_inputs(1, image_shapes=[(3, *size)], num_items=[2], num_classes=2, with_mask=True)
        with torch.autocast(device, kind):
            loss, losses = model.parse_losses(model(**model.data_preprocessor(data, True), mode='loss'))
        loss.backward()
        return losses

    losses, milliseconds, megabytes = measured(device, step)
    assert all(bool(value.isfinite()) for value in losses.values()), losses
    gradients = [bool(one.grad.isfinite().all()) for one in model.parameters() if one.grad is not None]
    assert gradients
    assert all(gradients)
    table.append((name, str(kind).removeprefix('torch.'), milliseconds, megabytes))


def train_share(config: Config) -> None:
    """Runs in every process."""
    with joined_processes(config, 'pytorch'):
        train(config)
        assert torch.distributed.get_backend() == 'nccl'


@pytest.mark.gpu
@pytest.mark.skipif(GPUS < 2, reason='needs two CUDA devices')
def test_two_processes_train_together(minibench_root: Path, tmp_path: Path, table: list) -> None:
    config = tiny_config(minibench_root, tmp_path / 'run')
    start = time.perf_counter()
    assert in_processes(2, tmp_path / 'console', train_share, config)
    assert all(bool(value.isfinite().all()) for value in load_weights(find_checkpoint(tmp_path / 'run')).values())
    table.append(('two steps and a validation by two processes', 'nccl', 1000 * (time.perf_counter() - start), 0.0))
