"""First aid on a machine with a GPU, ``make test-gpu``: operators, a step of both models, two processes; one table.

Its CPU half, on the small models, is part of the ordinary tests, so that it is known to run.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmcv.ops import nms, roi_align
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
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


def suppressed(device: str) -> list[Tensor]:
    corners = torch.rand(3000, 2) * 400
    boxes = torch.cat([corners, corners + 5 + 60 * torch.rand(3000, 2)], 1)
    return [nms(boxes.to(device), (torch.randperm(3000) / 3000).to(device), 0.5)[1]]


def pooled(device: str) -> list[Tensor]:
    maps = torch.randn(2, 64, 50, 68).to(device).requires_grad_()
    corners = torch.rand(200, 2) * 200
    rois = torch.cat([torch.arange(200)[:, None] % 2, corners, corners + 4 + corners.flip(0) / 2], 1).to(device)
    output = roi_align(maps, rois, 7, 0.25, 0, 'avg', True)
    output.backward(torch.linspace(-1, 1, output.numel(), device=device).view_as(output))
    return [output, maps.grad]


def attended(device: str) -> list[Tensor]:
    shapes = torch.tensor([[32, 40], [16, 20], [8, 10]])
    keys = shapes.prod(1)
    # In double precision: where a sample meets a cell's edge, its gradient jumps, and roundings differ.
    value = torch.randn(2, int(keys.sum()), 8, 32).double()
    locations = torch.rand(2, 300, 8, 3, 4, 2).double() * 1.2 - 0.1
    weights = torch.rand(2, 300, 8, 3, 4).double()
    value, locations, weights = inputs = [one.to(device).requires_grad_() for one in (value, locations, weights)]
    starts = torch.cat([keys.new_zeros(1), keys.cumsum(0)[:-1]])
    output = MultiScaleDeformableAttnFunction.apply(value, shapes.to(device), starts.to(device), locations, weights, 64)
    output.backward(torch.linspace(-1, 1, output.numel(), device=device).double().view_as(output))
    return [output, *(one.grad for one in inputs)]


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


def batch(height: int, width: int) -> dict[str, list]:
    """One image with a tote and an object in it."""
    boxes = [[0, 0, width, height], [width // 4, height // 4, width // 2, height // 2]]
    masks = torch.zeros(2, height, width, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
    sample = DetDataSample(metainfo={'img_shape': (height, width), 'ori_shape': (height, width)})
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32),
        labels=torch.tensor([0, 1]),
        masks=BitmapMasks(masks.numpy(), height, width),
    )
    return {'inputs': [torch.randint(0, 256, (3, height, width), dtype=torch.uint8)], 'data_samples': [sample]}


@pytest.mark.parametrize(('device', 'name', 'size'), STEPS)
def test_a_step_in_mixed_precision(device: str, name: str, size: tuple[int, int], table: list) -> None:
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(load_config(name).model).to(device).train()
    kind = torch.float16 if device == 'cuda' else torch.bfloat16

    def step() -> dict[str, Tensor]:
        model.zero_grad()
        data = model.data_preprocessor(batch(*size), True)
        with torch.autocast(device, kind):
            loss, losses = model.parse_losses(model(**data, mode='loss'))
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
