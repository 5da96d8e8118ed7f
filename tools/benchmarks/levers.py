"""Levers: what each costs and gains on this machine, pulled one after the other, for both full models.

A row compares a setting with the plain model: seconds of a training step or of a prediction, those of an image where
there are two, and peak memory. Every setting runs in a process of its own, on the same random weights and images;
``equal`` says whether the losses agree to a thousandth, as they must but for mixed precision, for frozen stages that
drop paths or have batch norms to train, and for a batch, which draws other samples. Mixed precision is left out where
the machine has none, and a setting that fails has a line with its error instead of rows.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.train import run_python

MODELS = {
    'Mask R-CNN R50, 800×1088': ('configs/_base_/models/mask-rcnn_r50_fpn.py', 800, 1088),
    'Mask2Former Swin-B, 512×512': ('configs/_base_/models/mask2former_swin-b-p4-w12-384.py', 512, 512),
}
SMALL = {'Mask R-CNN R18, 256×320': ('configs/_base_/models/mask-rcnn_r18-w32_fpn-64.py', 256, 320)}
SETTINGS: dict[str, dict[str, Any]] = {
    'channels-last': {'channels_last': True},
    'channels-last + compile': {'channels_last': True, 'compile': True},
    'channels-last + compile + amp': {'channels_last': True, 'compile': True, 'amp': True},
    'amp': {'amp': True},
    'frozen backbone': {'frozen_stages': 4},
    'activation checkpointing': {'with_cp': True},
    'one thread': {'threads': 1},
    'batch of 2': {'batch': 2},
}


def rows(small: bool = False) -> Iterator[dict[str, Any]]:
    """Yield a row of each figure of each setting, beside the same figure of the plain model."""
    for case, (config, height, width) in (SMALL if small else MODELS).items():
        plain = _measured(f'{case}, no lever', [config, height, width, {}])
        for name, setting in SETTINGS.items():
            if plain is None or (setting.get('amp') and not plain['has_amp']):
                continue
            found = _measured(f'{case}, {name}', [config, height, width, setting])
            if found is None:
                continue
            is_equal = abs(found['loss'] - plain['loss']) < 1e-3 * plain['loss']
            for figure, unit in (('train step', 's'), ('predict', 's'), ('peak memory', 'MB')):
                ours, peer = found[figure], plain[figure]
                about = {'name': 'levers', 'case': f'{case}, {name}, {figure}', 'ours': ours, 'peer': peer}
                yield {**about, 'unit': unit, 'ratio': peer / ours, 'equal': is_equal}


def _measured(case: str, arguments: list[Any]) -> dict[str, Any] | None:
    """What :func:`_run` returns in a process of its own; nothing, and a line, if it fails."""
    try:
        return run_python(sys.executable, __file__, json.dumps(arguments))
    except RuntimeError as failure:
        lines = str(failure).strip().splitlines()
        print(f'levers: {case} failed: {next((line for line in reversed(lines) if "Error: " in line), lines[-1])}')
        return None


def _run(config: str, height: int, width: int, setting: dict[str, Any]) -> dict[str, Any]:
    """Time training steps and predictions of one setting, in this process."""
    import torch
    import torch._inductor.config
    from benchmarks._sample import sample

    from armbench_mmdet.engine.levers import has_bfloat16

    torch._inductor.config.fallback_random = True  # a compiled stochastic depth draws what a plain one does
    device, dtype = ('cuda', torch.float16) if torch.cuda.is_available() else ('cpu', torch.bfloat16)
    torch.set_num_threads(setting.get('threads', torch.get_num_threads()))
    mixed = torch.autocast(device, dtype, enabled=bool(setting.get('amp')))
    model = _model(config, setting).to(device)
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=1e-4)
    batch = setting.get('batch', 1)
    truth = sample(height, width).to(device)
    images = torch.randn(1, 3, height, width, device=device).repeat(batch, 1, 1, 1)
    scaler = torch.amp.GradScaler(device, enabled=bool(setting.get('amp')) and device == 'cuda')

    def train() -> float:
        with mixed:
            loss, _ = model.parse_losses(model.loss(images, [truth.clone() for _ in range(batch)]))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return float(loss.detach())

    def predict() -> None:
        with torch.inference_mode(), mixed:
            model.predict(images, [truth.clone() for _ in range(batch)])

    model.train()
    torch.manual_seed(1)
    loss = train()
    figures = {'train step': _fastest_s(train) / batch, 'peak memory': _peak_mb()}
    model.eval()
    return {
        **figures,
        'predict': _fastest_s(predict) / batch,
        'loss': loss,
        'has_amp': device == 'cuda' or has_bfloat16(),
    }


def _model(config: str, setting: dict[str, Any]) -> Any:
    import torch
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from armbench_mmdet.engine.levers import use_levers

    init_default_scope('mmdet')
    loaded = Config.fromfile(config)
    loaded.model.backbone.init_cfg = None
    loaded.model.backbone.update({key: setting[key] for key in ('with_cp', 'frozen_stages') if key in setting})
    torch.manual_seed(0)
    model = MODELS.build(loaded.model)
    use_levers(model, {key: setting[key] for key in ('channels_last', 'compile') if key in setting})
    return model


def _fastest_s(step: Callable[[], Any]) -> float:
    """The fastest of three calls, on a GPU of twenty, after two that warm up."""
    import torch

    seconds = []
    for _ in range(22 if torch.cuda.is_available() else 5):
        begin = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return min(seconds[2:])


def _peak_mb() -> float:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == '__main__':
    import armbench_mmdet  # noqa: F401 - before the stock stack is imported

    print(json.dumps(_run(*json.loads(sys.argv[1]))))
