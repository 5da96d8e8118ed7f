"""Runs as training and testing leave them, made in moments: results through the real metric, logs written by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from coco_random import as_samples
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from armbench_mmdet.configs import load_config, set_data_root
from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.datasets.ground_truth import GroundTruthSource
from armbench_mmdet.datasets.release import CLASSES
from armbench_mmdet.evaluation import ArmbenchMetric
from armbench_mmdet.run_folder import Attempt, Git, RunRecord, write_record
from armbench_mmdet.transforms.corruption import CORRUPTIONS, SEVERITIES

REPO = Path(__file__).resolve().parents[2]
MASK_RCNN = 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'
MASK2FORMER = 'configs/mask2former/mask2former_r18-w32_q30_minibench.py'


def write_result(work_dir: Path, data: Path, subset: str, config, noise_px=2.0, seed=0, classes=CLASSES) -> Path:
    """Evaluate shifted ground truth as predictions, some of it left out, as tools/test.py would."""
    ann_file = data / subset / 'test.json'
    truth = COCO(ann_file)
    names = {one['id']: one['name'].lower() for one in truth.dataset['categories']}
    rng = np.random.default_rng(seed)
    detections = []
    for one in truth.dataset['annotations']:
        name = names[one['category_id']]
        if name not in classes or rng.random() < noise_px / 40:
            continue
        shift = rng.normal(0, noise_px, 2).round().astype(int)
        mask = mask_api.encode(np.asfortranarray(np.roll(truth.annToMask(one), shift, (0, 1))))
        found = {'image_id': one['image_id'], 'category_id': classes.index(name) + 1, 'score': rng.uniform(0.3, 1)}
        detections.append({**found, 'bbox': mask_api.toBbox(mask), 'segmentation': mask})
    result_file = work_dir / 'results' / f'{subset}_test.json'
    identity = {'config': config, 'checkpoint': str(work_dir / 'iter_600.pth'), 'seed': seed}
    metric = ArmbenchMetric(result_file=str(result_file), identity=identity, log_table=False)
    source = GroundTruthSource(str(ann_file), str(ann_file.parent / 'images'))
    metric.dataset_meta = {'classes': classes, **source.as_metainfo()}
    for sample in as_samples(truth.dataset, detections):
        metric.process({}, [sample])
        metric.add_timing({'load': 0.004, 'forward': 0.02, 'post-process': 0.001}, 1)
    metric.evaluate(len(truth.dataset['images']))
    return result_file


def set_keys(path: Path, **keys: Any) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def set_identity(result_file: Path, extra: dict[str, Any], **keys: Any) -> None:
    """Set keys of a result's identity, and of what more is in it."""
    identity = json.loads(result_file.read_text())['identity']
    set_keys(result_file, identity={**identity, **keys, 'extra': {**identity['extra'], **extra}})


def log_rows() -> list[dict[str, Any]]:
    """What a schedule of 600 iterations logs, validated every 200."""
    rows = []
    for step in range(20, 601, 20):
        part = 1 / (1 + step / 200)
        losses = {'loss': 1.8 * part, 'loss_cls': 0.4 * part, 'loss_mask': 0.8 * part, 'd0.loss_mask': 0.6 * part}
        rows.append({'lr': 1e-3 * part, **losses, 'iter': step, 'step': step})
        if step % 200 == 0:
            scores = {'coco/segm_mAP': 0.5 - part / 3, 'coco/segm_object_mAP': 0.3 - part / 5}
            rows.append({**scores, **{f'val_loss/{name}': 1.2 * value for name, value in losses.items()}, 'step': step})
    return rows


def write_log(work_dir: Path, rows: list[dict], stamp: str = '20261124_010203') -> Path:
    path = work_dir / stamp / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return path


def write_run_record(work_dir: Path, config: str, status: Any = 'finished', message: str | None = None) -> None:
    """A record of one attempt."""
    work_dir.mkdir(exist_ok=True)
    attempt = Attempt(started='2026-11-24T01:02:03Z', status=status, git=Git('1234abc'), hardware={'cores': 2})
    told = {'data': {'mix-object-tote/train.json': 'sha256:feed'}, 'attempts': [attempt]}
    write_record(work_dir, RunRecord(config=config, seed=7, status=status, message=message, **told))


def write_corruptions(work_dir: Path, config: str, seed: int) -> None:
    """What tools/test.py --corruptions leaves of two subsets; in the last no tote is annotated."""
    for subset in (SUBSETS[0], SUBSETS[2]):
        scores = [
            {'mean': score, 'tote': None if subset == SUBSETS[2] else score, 'object': score}
            for score in np.linspace(0.7, 0.2, 1 + len(SEVERITIES)) + 0.01 * seed
        ]
        content = {'config': config, 'checkpoint_sha256': 'feed', 'subset': subset, 'split': 'test', 'clean': scores[0]}
        content['corrupted'] = dict.fromkeys(CORRUPTIONS, scores[1:])
        path = work_dir / 'corruptions' / f'{subset}_test.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))


def write_run(work_dir: Path, data: Path, config: str = MASK_RCNN, noise_px: float = 2.0, seed: int = 0) -> Path:
    """A finished run with results on every subset."""
    for subset in SUBSETS:
        write_result(work_dir, data, subset, config, noise_px, seed)
    write_corruptions(work_dir, config, seed)
    vis_data = write_log(work_dir, log_rows()).parent
    write_run_record(work_dir, config)
    resolved = load_config(REPO / config)
    set_data_root(resolved, data)
    resolved.randomness = {'seed': seed}
    resolved.optim_wrapper.optimizer.lr = 0.5
    resolved.dump(str(vis_data / 'config.py'))
    resolved.train_dataloader = resolved.train_cfg = None
    resolved.dump(str(work_dir / Path(config).name))  # what tools/test.py leaves there
    return work_dir
