"""What was run: the config that training had, and the facts of the record."""

import json
import shutil
from pathlib import Path

from mmengine.config import Config
from synthetic_runs import MASK_RCNN, record

from armbench_mmdet.configs import dumped_config
from armbench_mmdet.report.collect import collect_runs
from armbench_mmdet.report.tables import facts


def test_the_config_of_training_is_found_behind_the_one_of_testing(work_dirs: list[Path]) -> None:
    assert Config.fromfile(work_dirs[0] / f'{Path(MASK_RCNN).stem}.py').train_cfg is None
    config, problems = dumped_config(work_dirs[0])
    assert problems == []
    assert config is not None
    assert config.optim_wrapper.optimizer.lr == 0.5


def test_facts_of_the_record(work_dirs: list[Path]) -> None:
    run = collect_runs([work_dirs[0]])[0][0]
    found = dict(facts(run))
    assert found['seed'] == '7'
    assert found['git revision'] == '1234abc with changes, kept in git.diff of the folder'
    assert found['hardware'] == 'cpu EPYC, cores 2, memory_mb 8192'
    assert found['data: mix-object-tote/train.json'] == 'sha256:feed'
    assert found['versions'] == 'torch 2.13.0'
    assert found['tested: mix-object-tote test'] == run.evaluations[0].fingerprint


def test_attempts_and_what_is_not_known(work_dirs: list[Path], tmp_path: Path) -> None:
    shutil.copytree(work_dirs[0], tmp_path / 'run')
    first, second = record(MASK_RCNN)['attempts'][0], record(MASK_RCNN, 'running')['attempts'][0]
    second['unreadable_images'] = ['a.jpg', 'b.jpg']
    changed = record(MASK_RCNN, 'running', attempts=[first, second])
    (tmp_path / 'run' / 'record.json').write_text(json.dumps(changed))
    run = collect_runs([tmp_path / 'run'])[0][0]
    found = dict(facts(run))
    assert found['attempt 1'].startswith('2026-11-24T01:02:03Z to 2026-11-24T01:12:05Z, iterations 0 to 600, finished,')
    assert found['attempt 2'].startswith(
        '2026-11-24T01:02:03Z to –, iterations 0 to –, unfinished, processes 1: python '
    )
    assert found['unreadable images'] == '2: a.jpg, b.jpg'
