"""What the fault tests train instead of a model: reports as a training does, and misbehaves on request.

Standard library only, and ``channel.py`` by its path: it starts in a few hundredths of a second.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import runpy
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def load_channel():
    spec = importlib.util.spec_from_file_location('channel', REPO / 'armbench_mmdet/sweep/channel.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(config: Path) -> int:
    channel = load_channel()
    model = runpy.run_path(str(config.parent / '../base.py'))['model']
    model.update(runpy.run_path(str(config)).get('model', {}))
    given = json.loads(os.environ[channel.VARIABLE])
    reporter = channel.Reporter(given['folder'], given['worker_pid'])
    behaviour = model['behaviour']
    if behaviour == 'crash':
        raise ValueError('the stand-in crashes')
    if behaviour == 'memory':
        print('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB')
        return 1
    if behaviour == 'nan':
        reporter.report(math.nan)
        return 0
    if behaviour == 'silent':
        return 0
    for step in range(model['steps']):
        deadline = time.monotonic() + model['step_s']
        while time.monotonic() < deadline or (behaviour == 'hang' and not Path(given['folder'], '../go').exists()):
            time.sleep(0.01)
            if reporter.is_abandoned():
                return 3
        if reporter.report(-abs(model['x'] - 0.3) + 0.01 * step):
            print('told to stop')
            return 0
    return 0


if __name__ == '__main__':
    sys.exit(main(Path(sys.argv[1])))
