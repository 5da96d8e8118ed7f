"""A sweep of real trainings, from the command line to the retrained best trial."""

import csv
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_models import LEAVES, REPO
from toy_run import logged

from armbench_mmdet.run_folder import read_record

SPACE = {
    'base': str(LEAVES['mask_rcnn']),
    'n_trials': 2,
    'pruner': {'type': 'SuccessiveHalvingPruner', 'min_resource': 1, 'reduction_factor': 2},
    'parameters': {
        'optim_wrapper.optimizer.lr': {'type': 'float', 'low': 1e-3, 'high': 1e-2, 'log': True},
        'model.backbone.frozen_stages': {'type': 'categorical', 'choices': [-1, 1]},
    },
}
FIXED = {
    'train_cfg': {'max_iters': 24, 'val_interval': 8},
    'param_scheduler.LinearLR.end': 4,
    'param_scheduler.CosineAnnealingLR': {'begin': 4, 'end': 24},
    'default_hooks': {'checkpoint': {'interval': 24}, 'logger': {'interval': 4}},
}


def run(*arguments: str | Path) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_interrupted_trial_goes_on_and_the_best_one_can_be_trained_again(
    minibench_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'NUMBA_NUM_THREADS'):
        monkeypatch.setenv(name, '1')  # another number of threads adds in another order
    loading = {'num_workers': 0, 'persistent_workers': False, 'dataset': {'data_root': str(minibench_root)}}
    fixed = {**FIXED, 'train_dataloader': loading, 'val_dataloader': loading}
    space, study = tmp_path / 'space.py', tmp_path / 'study'
    space.write_text(''.join(f'{key} = {value!r}\n' for key, value in {**SPACE, 'fixed': fixed}.items()))
    command = ['tools/sweep.py', space, '--work-dir', study]
    interrupted = subprocess.Popen([sys.executable, *command], cwd=REPO)
    while not (study / 'trial_0000/reports.jsonl').exists():
        assert interrupted.poll() is None
        time.sleep(0.1)
    interrupted.terminate()
    assert interrupted.wait(60) == 130

    shown = run(*command, '--workers', '2')
    assert 'threads of each training' in shown.splitlines()[0]
    assert '2/2 trials over' in shown
    assert 'mmengine - INFO' not in shown
    assert 'arning' not in shown
    trials = list(csv.DictReader((study / 'trials.csv').open()))
    assert (trials[0]['state'], trials[0]['reason']) == ('fail', 'interrupted')
    (resumed,) = (trial for trial in trials if trial['retry_of'] == '0')
    attempt = read_record(study / f'trial_{int(resumed["number"]):04d}/run').attempts[0]
    assert attempt.resumed_from == str(study / 'trial_0000/run/interrupted.pth')
    assert attempt.start_iter >= 8
    assert not Path(attempt.resumed_from).exists()
    assert {trial['state'] for trial in trials[1:]} <= {'complete', 'pruned'}
    assert (study / 'report.html').stat().st_size > 1_000_000
    (best,) = (trial for trial in trials if trial['best'])

    run('tools/train.py', study / 'best.py', '--work-dir', tmp_path / 'again')
    first, again = logged(study / f'trial_{int(best["number"]):04d}/run'), logged(tmp_path / 'again')
    assert first.items() <= again.items()
    assert first['val', 24]['coco/segm_mAP'] == float(best['value'])
