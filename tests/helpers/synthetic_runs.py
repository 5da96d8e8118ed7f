"""Runs as training and testing leave them, made in moments: results through the real metric, logs written by hand."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from metric_runs import as_samples
from pycocotools import mask as mask_api

from armbench_mmdet.configs import load_config, set_data_root
from armbench_mmdet.datasets import SUBSETS
from armbench_mmdet.datasets.ground_truth import GroundTruthSource
from armbench_mmdet.datasets.release import CLASSES
from armbench_mmdet.evaluation import ArmbenchMetric
from armbench_mmdet.transforms.corruption import CORRUPTIONS, SEVERITIES

REPO = Path(__file__).resolve().parents[2]
MASK_RCNN = 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'
MASK2FORMER = 'configs/mask2former/mask2former_r18-w32_q30_minibench.py'
HEIGHT_PX, WIDTH_PX = 96, 128


def write_data(root: Path, seed: int = 0, images: int = 6) -> Path:
    """A data set of rectangles in a tote, the test split of every subset."""
    for number, subset in enumerate(SUBSETS):
        rng = np.random.default_rng([seed, number])
        folder = root / subset
        (folder / 'images').mkdir(parents=True)
        truth: dict[str, Any] = {'images': [], 'annotations': [], 'info': {'seed': seed}}
        truth['categories'] = [{'id': 1, 'name': 'Tote'}, {'id': 2, 'name': 'Object'}]
        for image_id in range(1, images + 1):
            name = f'{subset[:2]}{image_id}.jpg'
            truth['images'].append({'id': image_id, 'file_name': name, 'height': HEIGHT_PX, 'width': WIDTH_PX})
            photo = np.full((HEIGHT_PX, WIDTH_PX, 3), 90 + 20 * image_id, np.uint8)
            cv2.imwrite(str(folder / 'images' / name), photo)
            boxes = [(1, (4, 4, 120, 88))]
            boxes += [(2, tuple(rng.integers(10, 50, 4).tolist())) for _ in range((3, 7)[image_id % 2])]
            for category, (x, y, w, h) in boxes:
                outline = [x, y, x + w, y, x + w, y + h, x, y + h]
                annotation = {'id': len(truth['annotations']) + 1, 'image_id': image_id, 'category_id': category}
                annotation |= {'bbox': [x, y, w, h], 'area': w * h, 'segmentation': [outline], 'iscrowd': 0}
                truth['annotations'].append(annotation)
        (folder / 'test.json').write_text(json.dumps(truth))
    return root


def write_result(
    work_dir: Path, data: Path, subset: str, config: str | None, noise_px: float, seed: int = 0, classes: Any = CLASSES
) -> Path:
    """Evaluate jittered ground truth as predictions, as tools/test.py would."""
    ann_file = data / subset / 'test.json'
    truth = json.loads(ann_file.read_text())
    rng = np.random.default_rng(seed)
    detections = []
    for one in truth['annotations']:
        name = CLASSES[one['category_id'] - 1]
        if name not in classes or rng.random() < noise_px / 40:
            continue
        x, y, w, h = (np.array(one['bbox']) + rng.normal(0, noise_px, 4)).round().astype(int).tolist()
        bitmap = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8, order='F')
        bitmap[max(y, 0) : y + max(h, 3), max(x, 0) : x + max(w, 3)] = 1
        found = {'image_id': one['image_id'], 'category_id': classes.index(name) + 1, 'score': rng.uniform(0.3, 1)}
        detections.append({**found, 'bbox': [x, y, max(w, 3), max(h, 3)], 'segmentation': mask_api.encode(bitmap)})
    stem = work_dir / 'results' / f'{subset}_test'
    identity = {'config': config, 'checkpoint': str(work_dir / 'iter_600.pth'), 'seed': seed}
    metric = ArmbenchMetric(result_file=f'{stem}.json', identity=identity, log_table=False)
    source = GroundTruthSource(str(ann_file), str(ann_file.parent / 'images'))
    metric.dataset_meta = {'classes': classes, **source.as_metainfo()}
    for sample in as_samples(truth, detections):
        metric.process({}, [sample])
        post_s = 0.001 * len(sample['pred_instances']['scores'])
        metric.add_timing({'load': 0.004, 'forward': 0.02, 'post-process': post_s}, 1)
    metric.evaluate(len(truth['images']))
    return stem.with_suffix('.json')


def log_rows(iterations: int = 600, validate_every: int = 200, val_loss: bool = True) -> list[dict]:
    """What an iteration schedule logs."""
    rows: list[dict[str, Any]] = []
    for step in range(20, iterations + 1, 20):
        part = 1 / (1 + step / 200)
        losses = {'loss_cls': 0.4 * part, 'loss_bbox': 0.3 * part, 'loss_mask': 0.5 * part, 'd0.loss_mask': 0.6 * part}
        rows.append(
            {'lr': 1e-3 * part, 'grad_norm': 3.0, 'loss': sum(losses.values()), **losses, 'iter': step, 'step': step}
        )
        if step % validate_every == 0:
            scores: dict[str, Any] = {'coco/segm_mAP': 0.5 - part / 3, 'coco/segm_object_mAP': 0.3 - part / 5}
            if val_loss:
                scores |= {f'val_loss/{name}': 1.2 * value for name, value in {'loss': 1.8 * part, **losses}.items()}
            rows.append({**scores, 'step': step})
    return rows


def write_log(work_dir: Path, rows: list[dict], stamp: str = '20261124_010203') -> Path:
    path = work_dir / stamp / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return path


def record(config: str, status: str = 'finished', **changes: Any) -> dict[str, Any]:
    """A record of one attempt."""
    attempt = {'started': '2026-11-24T01:02:03Z', 'ended': '2026-11-24T01:12:05Z', 'status': status, 'message': None}
    attempt |= {'command': f'python tools/train.py {config}', 'resumed_from': None, 'start_iter': 0, 'end_iter': 600}
    attempt |= {'world_size': 1, 'git': {'revision': '1234abc', 'diff': 'git.diff'}, 'versions': {'torch': '2.13.0'}}
    attempt |= {'hardware': {'cpu': 'EPYC', 'cores': 2, 'memory_mb': 8192, 'gpus': []}}
    if status == 'running':
        attempt['ended'] = attempt['end_iter'] = None
    whole = {'schema_version': 1, 'config': config, 'seed': 7, 'status': status, 'message': None}
    return {**whole, 'data': {'mix-object-tote/train.json': 'sha256:feed'}, 'attempts': [attempt], **changes}


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
    (work_dir / 'record.json').write_text(json.dumps(record(config)))
    resolved = load_config(REPO / config)
    set_data_root(resolved, data)
    resolved.optim_wrapper.optimizer.lr = 0.5
    resolved.dump(str(vis_data / 'config.py'))
    resolved.train_dataloader = resolved.train_cfg = None
    resolved.dump(str(work_dir / Path(config).name))  # what tools/test.py leaves there
    return work_dir
