"""Importing the package leaves the process as it was."""

import subprocess
import sys

PROGRAM = """
import mmcv, mmdet, mmengine.runner, torch, sys
import torch.utils.data.dataloader, mmcv.transforms, mmengine.visualization, mmengine.hooks

def attributes():
    modules = [name for name in sys.modules if name.partition('.')[0] in ('torch', 'mmcv', 'mmengine')]
    return {(name, key): value for name in modules for key, value in vars(sys.modules[name]).items()}

before, loaders = attributes(), dict(mmengine.runner.CheckpointLoader._schemes)
import armbench_mmdet
after, modules = attributes(), {name for name, _ in before}
for place in before.keys() | after.keys():
    old, new = before.get(place), after.get(place)
    if old is not new and place[0] in modules and not isinstance(new, type(sys)):  # a submodule that was imported
        print('changed', *place)
assert mmengine.runner.CheckpointLoader._schemes == loaders
"""


def test_no_library_is_changed_by_the_import() -> None:
    done = subprocess.run([sys.executable, '-c', PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stdout.splitlines() if line.startswith('changed')]
