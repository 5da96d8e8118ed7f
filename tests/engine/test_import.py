"""Importing the package leaves the process as it was."""

import subprocess
import sys

PROGRAM = """
import mmcv, mmdet, mmengine.runner, torch, sys
import torch.utils.data.dataloader, mmcv.transforms, mmengine.visualization, mmengine.hooks

LIBRARIES = ('torch', 'mmcv', 'mmengine')

def attributes():
    modules = [name for name in sys.modules if name.partition('.')[0] in LIBRARIES]
    return {name: dict(vars(sys.modules[name])) for name in modules}

before, loaders = attributes(), dict(mmengine.runner.CheckpointLoader._schemes)
import armbench_mmdet
after = attributes()
for name, old in before.items():
    for key, value in old.items():
        if key not in after[name] or after[name][key] is not value:
            print('changed', name, key)
    for key, value in after[name].items():
        if key not in old and not isinstance(value, type(sys)):  # a submodule that was imported
            print('changed', name, key)
assert mmengine.runner.CheckpointLoader._schemes == loaders
"""


def test_no_library_is_changed_by_the_import() -> None:
    done = subprocess.run([sys.executable, '-c', PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    changed = [line for line in done.stdout.splitlines() if line.startswith('changed')]
    assert not changed
