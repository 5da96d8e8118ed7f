"""What the sweep's tests train instead of a model, by the standard library alone; misbehaves on request."""

import json
import os
import runpy
import sys
import time
from pathlib import Path


def main(config: Path) -> int:
    model = runpy.run_path(str(config.parent / '../base.py'))['model']
    model.update(runpy.run_path(str(config)).get('model', {}))
    given = json.loads(os.environ['ARMBENCH_SWEEP'])
    folder, behaviour = Path(given['folder']), model['behaviour']
    print('threads', os.environ.get('OMP_NUM_THREADS'), 'GPUs', os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True)
    if behaviour == 'crash':
        raise ValueError('the stand-in crashes')
    if behaviour == 'silent':
        return 0
    if behaviour in ('nan', 'out of memory', 'lost process'):  # a run that knows why it ends
        record = {'schema_version': 1, 'config': '', 'status': 'failed', 'attempts': [], 'reason': behaviour}
        (folder / 'run').mkdir()
        (folder / 'run/record.json').write_text(json.dumps(record | {'message': f'It was {behaviour}.\nMore'}))
        return 2
    for step in range(model['steps']):
        deadline = time.monotonic() + model['step_s']
        while time.monotonic() < deadline or (behaviour == 'hang' and not (folder / '../go').exists()):
            time.sleep(0.01)
            os.kill(given['worker_pid'], 0)  # as the hook does: an error where the worker is gone
        value = 'NaN' if behaviour == 'metric' else -abs(model['x'] - 0.3) + 0.01 * step
        with (folder / 'reports.jsonl').open('a') as file:
            file.write(f'{{"iteration": {step}, "values": {{"score": {value}, "cost": {model["x"] ** 2}}}}}\n')
    print('finished')
    return 0


if __name__ == '__main__':
    sys.exit(main(Path(sys.argv[1])))
