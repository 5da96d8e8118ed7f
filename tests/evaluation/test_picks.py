"""Scores of picks, against a reference that looks at every pixel."""

import numpy as np
import pytest
from coco_random import encode, matching_of, random_dataset
from pycocotools import mask as mask_api

from armbench_mmdet.evaluation.operating import pick_scores


def aimed_at(mask) -> tuple[int, int] | None:
    """Row and column of the most interior point."""
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    pitch = -(-max(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) // 64)
    grid = mask[rows[0] : rows[-1] + 1 : pitch, columns[0] : columns[-1] + 1 : pitch]
    if not grid.any():
        return int(np.flatnonzero(mask[:, columns[0]])[0]), int(columns[0])
    y, x = np.nonzero(grid)
    outside = np.argwhere(~np.pad(grid, 1)) - 1
    distances = [np.min(np.hypot(*(outside - point).T)) for point in zip(y, x, strict=True)]
    best = min(range(len(x)), key=lambda i: (-round(distances[i], 3), x[i], y[i]))
    return int(y[best] * pitch + rows[0]), int(x[best] * pitch + columns[0])


def by_hand(truth, detections, threshold: float = 0.5) -> dict[str, float] | None:
    """The definitions, pixel by pixel."""
    shares, errors = {1: [], 3: [], 5: []}, []
    for image in truth['images']:
        own = [a for a in truth['annotations'] if a['image_id'] == image['id'] and a['category_id'] == 2]
        objects = [mask_api.decode(a['segmentation']).astype(bool) for a in own if not a['iscrowd']]
        found = [d for d in detections if d['image_id'] == image['id'] and d['category_id'] == 2]
        found.sort(key=lambda one: -one['score'])
        errors.append(abs(sum(one['score'] >= threshold for one in found) - len(objects)))
        picked: set[int] = set()
        successes = []
        for one in found:
            mask = mask_api.decode(one['segmentation']).astype(bool)
            aim = aimed_at(mask)
            free = [n for n, g in enumerate(objects) if aim and g[aim] and n not in picked]
            target = free[0] if free else None
            covers = [n for n, g in enumerate(objects) if n != target and (mask & g).sum() > g.sum() / 4]
            successes.append(target is not None and not covers)
            if successes[-1]:
                picked.add(target)
        for k in shares if objects else ():
            wanted = min(k, len(objects))
            shares[k].append(sum(successes[:wanted]) / wanted)
    if not shares[1]:
        return None
    return {**{f'success_{k}': np.mean(each) for k, each in shares.items()}, 'count_error': np.mean(errors)}


def test_picks_are_the_definitions() -> None:
    seen = set()
    for seed in range(12):
        truth, detections = random_dataset(seed, images=4)
        found, expected = pick_scores(matching_of(truth, detections), 'object'), by_hand(truth, detections)
        if expected is None:
            assert found is None
            continue
        for name, value in expected.items():
            assert getattr(found, name) == pytest.approx(value), (seed, name)
        seen.add(round(found.success_1, 3))
    assert len(seen) > 4


def test_a_mask_over_two_objects_fails_and_each_object_is_picked_once() -> None:
    left, right = np.zeros((2, 40, 60), bool)
    left[5:30, 5:25], right[5:30, 26:50] = True, True
    both = left | right
    truth = {'images': [{'id': 1, 'height': 40, 'width': 60}], 'categories': [{'id': 2, 'name': 'object'}]}
    truth['annotations'] = [
        {'id': n, 'image_id': 1, 'category_id': 2, 'segmentation': encode(m), 'area': m.sum(), 'iscrowd': 0}
        for n, m in enumerate((left, right), 1)
    ]

    def first_two(*masks) -> float:
        rows = [
            {'image_id': 1, 'category_id': 2, 'score': 0.9 - n / 10, 'segmentation': encode(m)}
            for n, m in enumerate(masks)
        ]
        return pick_scores(matching_of(truth, rows), 'object').success_3

    assert first_two(left, right) == 1
    assert first_two(both, right) == 0.5
    assert first_two(left, left) == 0.5
    assert first_two(left) == 0.5
