"""Training: what our runner and hooks cost, and our operators against mmcv's compiled ones.

The first row is an iteration of the small minibench model under the default runtime (guards, seeding, logging) and
under mmengine's own runner and hooks. The second is a Mask R-CNN R50-FPN step; its peer needs an environment in which
mmcv was compiled, whose interpreter ``ARMBENCH_COMPILED_PYTHON`` names (it needs this project's requirements as well).
The sides run in processes of their own, in turn.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = 'ARMBENCH_COMPILED_PYTHON'
HEIGHT_PX, WIDTH_PX, STEPS, ROUNDS = 320, 448, 6, 3
OVERHEAD_ITERATIONS, OVERHEAD_ROUNDS = 40, 4

STEP = f"""
import json, sys, time
import armbench_mmdet
import numpy as np, torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

init_default_scope('mmdet')
config = Config.fromfile('configs/_base_/models/mask-rcnn_r50_fpn.py')
config.model.backbone.init_cfg = None
torch.manual_seed(0)
model = MODELS.build(config.model).train()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
height, width = {HEIGHT_PX}, {WIDTH_PX}
rng = np.random.default_rng(0)
corners = rng.integers(0, (width - 100, height - 100), (10, 2))
boxes = np.concatenate([corners, corners + rng.integers(30, 100, (10, 2))], 1)
masks = np.zeros((10, height, width), np.uint8)
for mask, (x1, y1, x2, y2) in zip(masks, boxes):
    mask[y1:y2, x1:x2] = 1
sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0),
                                     batch_input_shape=(height, width), pad_shape=(height, width)))
sample.gt_instances = InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32), labels=torch.arange(10) % 2,
                                   masks=BitmapMasks(masks, height, width))
image = torch.randn(1, 3, height, width)
seconds, losses = [], []
for step in range({STEPS} + 2):
    begin = time.perf_counter()
    loss, _ = model.parse_losses(model.loss(image, [sample]))
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    seconds.append(time.perf_counter() - begin); losses.append(float(loss.detach()))
print(json.dumps(dict(seconds=seconds[2:], losses=losses)))
"""


def measure(python: str) -> dict[str, Any]:
    """Run the steps in one interpreter; the first two, which warm up, are not timed."""
    return run_python(python, '-c', STEP)


def run_python(*command: str) -> Any:
    """Run an interpreter from the repository and return the JSON of its last line."""
    own = os.environ.get('PYTHONPATH', '') if command[0] == sys.executable else ''
    paths = (str(ROOT), str(ROOT / 'tools'), own)
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f'{command[0]} failed:\n{done.stderr[-2000:]}')
    return json.loads(done.stdout.strip().splitlines()[-1])


def overhead_row(small: bool) -> dict[str, Any]:
    """Our runner and hooks against mmengine's: the sum over the same iterations, each at its fastest of some rounds."""
    script = str(Path(__file__).with_name('_overhead.py'))
    rounds: dict[str, list[list[float]]] = {'ours': [], 'stock': []}
    losses = set()
    for _ in range(1 if small else OVERHEAD_ROUNDS):
        for side, seconds in rounds.items():
            measured = run_python(sys.executable, script, side, str(4 if small else OVERHEAD_ITERATIONS))
            seconds.append(measured['seconds'])
            losses.add(measured['loss'])
    ours, stock = (sum(map(min, zip(*seconds, strict=True))) / len(seconds[0]) for seconds in rounds.values())
    return {
        'name': 'train',
        'case': "iteration of the small minibench model, our runner and hooks against mmengine's",
        'ours': ours,
        'peer': stock,
        'unit': 's',
        'ratio': stock / ours,
        'equal': len(losses) == 1,
    }


def rows(small: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the benchmark's rows: each side in processes of its own, in turn."""
    yield overhead_row(small)
    peer_python = os.environ.get(VARIABLE)
    if peer_python is None:
        print(f'train: set {VARIABLE} to the python of an environment with a compiled mmcv for the comparison')
        return
    ours: list[float] = []
    peers: list[float] = []
    first_losses = []
    for _ in range(1 if small else ROUNDS):
        for python, seconds in ((sys.executable, ours), (peer_python, peers)):
            result = measure(python)
            seconds += result['seconds']
            first_losses.append(result['losses'][0])
    mine, theirs = statistics.median(ours), statistics.median(peers)
    yield {
        'name': 'train',
        'case': f'Mask R-CNN R50 step, {HEIGHT_PX}×{WIDTH_PX}, operators against compiled mmcv',
        'ours': mine,
        'peer': theirs,
        'unit': 's',
        'ratio': theirs / mine,
        'equal': max(first_losses) - min(first_losses) < 1e-3 * max(first_losses),
    }
