"""The anatomy of errors, against references that walk over detections one by one."""

import numpy as np
import pytest
from coco_random import CATEGORIES, encode, matching_of, random_dataset
from pycocotools import mask as mask_api

from armbench_mmdet.evaluation.anatomy import error_anatomy
from armbench_mmdet.evaluation.result import Anatomy

NAMES = {category['id']: category['name'] for category in CATEGORIES}
KINDS = ('classification', 'localisation', 'both', 'duplicate', 'background', 'missed')


def data(seed: int):
    """A random data set in which no two scores are equal, and without crowds."""
    truth, detections = random_dataset(seed, images=8)
    scores = np.random.default_rng(seed).permutation(len(detections)) + 0.5
    truth['annotations'] = [one for one in truth['annotations'] if not one['iscrowd']]
    found = [{**d, 'score': score / len(detections)} for d, score in zip(detections, scores.tolist(), strict=True)]
    return truth, sorted(found, key=lambda one: -one['score'])


def anatomy_of(truth, detections) -> Anatomy:
    return error_anatomy(matching_of(truth, detections, is_across=True))


def matched_by_hand(truth, detections):
    """Each detection with its overlaps, and the annotation that it has."""
    annotated = {a['category_id'] for a in truth['annotations']}
    counted, owned = [], {}
    for d in detections:
        near = [a for a in truth['annotations'] if a['image_id'] == d['image_id']]
        ious = [mask_api.iou([d['segmentation']], [a['segmentation']], [0])[0, 0] for a in near]
        own = [(iou, a) for iou, a in zip(ious, near, strict=True) if a['category_id'] == d['category_id']]
        other = [(iou, a) for iou, a in zip(ious, near, strict=True) if a['category_id'] != d['category_id']]
        free = [(iou, a) for iou, a in own if a['id'] not in owned]
        best = max(free, key=lambda pair: pair[0], default=(0, None))
        one = {**d, 'own': max(own, key=lambda p: p[0], default=(0, None))}
        one |= {'other': max(other, key=lambda p: p[0], default=(0, None)), 'iou': best[0], 'has': None}
        if best[0] >= 0.5:
            one['has'] = best[1]
            owned[best[1]['id']] = one
        if d['category_id'] in annotated:
            counted.append(one)
    return counted, owned


def kind_by_hand(one) -> str:
    own, other = one['own'][0], one['other'][0]
    if 0.1 <= own < 0.5:
        return 'localisation'
    if other >= 0.5:
        return 'classification'
    if own >= 0.5:
        return 'duplicate'
    return 'background' if max(own, other) <= 0.1 else 'both'


def mean_ap(counted, instances: dict[int, int]) -> float:
    """AP at IoU 0.5 of ``(category, is right)`` by falling score, precision at 101 recalls."""
    values = []
    for category, number in instances.items():
        right = np.array([is_right for own, is_right in counted if own == category], float)
        recall = np.cumsum(right) / max(number, 1)
        precision = np.cumsum(right) / np.arange(1, len(right) + 1)
        points = [precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]
        values.append(np.mean(points) if number else 0)
    return float(np.mean(values))


def costs_by_hand(truth, detections) -> dict[str, float]:
    counted, owned = matched_by_hand(truth, detections)
    instances = {c: sum(a['category_id'] == c for a in truth['annotations']) for c in NAMES}
    instances = {c: number for c, number in instances.items() if number}
    now = mean_ap([(one['category_id'], one['has'] is not None) for one in counted], instances)
    costs, usable = {}, set()
    for kind in KINDS[:-1]:
        fixed, taken = [], set()
        for one in counted:
            if one['has'] is not None or kind_by_hand(one) != kind:
                fixed.append((one['category_id'], one['has'] is not None))
            elif kind in ('localisation', 'classification'):
                target = one['own' if kind == 'localisation' else 'other'][1]
                if target['id'] not in owned:
                    usable.add(target['id'])
                    if target['id'] not in taken:
                        fixed.append((target['category_id'], True))
                    taken.add(target['id'])
        costs[kind] = mean_ap(fixed, instances) - now
    missed = [a for a in truth['annotations'] if a['id'] not in owned and a['id'] not in usable]
    left = {c: number - sum(a['category_id'] == c for a in missed) for c, number in instances.items()}
    costs['missed'] = mean_ap([(one['category_id'], one['has'] is not None) for one in counted], left) - now
    return costs


def test_costs_are_those_of_the_definitions() -> None:
    seen = set()
    for seed in range(40):
        truth, detections = data(seed)
        found = anatomy_of(truth, detections).costs
        if not truth['annotations']:
            assert found == {}
            continue
        for kind, value in costs_by_hand(truth, detections).items():
            assert getattr(found['mean'], kind) == pytest.approx(value, abs=1e-9), (seed, kind)
            seen |= {kind} if value else set()
    assert seen == set(KINDS)


def test_confusion_and_suspects_are_those_of_the_definitions() -> None:
    seen = set()
    for seed in range(40):
        truth, detections = data(seed)
        sure, owned = matched_by_hand(truth, [d for d in detections if d['score'] >= 0.5])
        known = sorted({a['category_id'] for a in truth['annotations']})
        rows, columns = [*(NAMES[c] for c in known), 'background'], [*(NAMES[c] for c in known), 'missed']
        table = {row: dict.fromkeys(columns, 0) for row in rows}
        del table['background']['missed']
        pairs, confused, suspects = {}, {}, []
        for one in sure:
            own, other = one['own'], one['other']
            if one['has'] is not None:
                continue
            if other[0] >= 0.5 and other[1]['id'] not in owned:
                confused.setdefault(other[1]['id'], one)
            if max(own[0], other[0]) < 0.1:
                suspects.append((one['score'], 'not annotated', None))
            target = other[1] if other[0] >= 0.5 else own[1] if 0.1 <= own[0] < 0.5 else None
            if target and target['id'] not in owned:
                pairs.setdefault(target['id'], (one['score'], 'class' if other[0] >= 0.5 else 'outline', target['id']))
        for a in truth['annotations']:
            guess = owned.get(a['id']) or confused.get(a['id'])
            table[NAMES[a['category_id']]][NAMES[guess['category_id']] if guess else 'missed'] += 1
        for c in known:
            every = sum(one['category_id'] == c for one in sure)
            table['background'][NAMES[c]] = every - sum(table[NAMES[row]][NAMES[c]] for row in known)
        found = anatomy_of(truth, detections)
        assert found.confusion == table, seed
        expected = sorted([*suspects, *pairs.values()], key=lambda one: -one[0])
        assert found.suspected == len(expected)
        assert [(one.score, one.fault, one.annotation_id) for one in found.suspects] == expected[:20]
        seen |= {fault for _, fault, _ in expected}
    assert seen == {'not annotated', 'class', 'outline'}


def test_lrp_is_the_least_over_thresholds() -> None:
    for seed in range(20):
        truth, detections = data(seed)
        found = anatomy_of(truth, detections).lrp
        for category, name in NAMES.items():
            instances = sum(a['category_id'] == category for a in truth['annotations'])
            assert (name in found) == bool(instances)
            own = [one for one in matched_by_hand(truth, detections)[0] if one['category_id'] == category]
            errors = []
            for number in range(len(own) + 1):
                right = [one['iou'] for one in own[:number] if one['has'] is not None]
                wrong = number - len(right) + instances - len(right)
                errors.append((sum(2 * (1 - iou) for iou in right) + wrong) / max(len(right) + wrong, 1))
            if instances:
                assert found[name].error == pytest.approx(min(errors)), seed


def test_equal_scores_crowds_and_nothing_at_all() -> None:
    for seed in range(20):
        truth, detections = random_dataset(seed)
        found = anatomy_of(truth, detections)
        for name, costs in found.costs.items():
            assert min(costs.duplicate, costs.background, costs.both, costs.missed) >= -1e-12, (seed, name)
        assert found.lrp.keys() | {'mean'} >= found.costs.keys()
    truth, detections = data(0)
    nothing = anatomy_of({**truth, 'annotations': []}, detections)
    assert (nothing.costs, nothing.suspected) == ({}, 0), 'predicting what is not annotated is no fault'
    empty = {'images': [], 'annotations': [], 'categories': CATEGORIES}
    assert anatomy_of(empty, []) == Anatomy(costs={}, lrp={}, confusion={'background': {}}, suspects=[], suspected=0)


def test_a_label_that_is_missing_and_one_of_the_wrong_class_are_suspected() -> None:
    masks = np.zeros((3, 40, 60), bool)
    for number, mask in enumerate(masks):
        mask[5:30, 20 * number : 20 * number + 15] = True
    truth = {'images': [{'id': 1, 'height': 40, 'width': 60, 'file_name': 'a.jpg'}], 'categories': CATEGORIES}
    truth['annotations'] = [
        {'id': n, 'image_id': 1, 'category_id': c, 'segmentation': encode(m), 'area': 375, 'iscrowd': 0}
        for n, (c, m) in enumerate(zip((2, 1), masks[:2], strict=True), 1)
    ]
    found = anatomy_of(
        truth,
        [
            {'image_id': 1, 'category_id': 2, 'score': score, 'segmentation': encode(mask)}
            for score, mask in zip((0.9, 0.8, 0.95), masks, strict=True)
        ],
    )
    assert [(one.fault, one.annotation_id, one.predicted) for one in found.suspects] == [
        ('not annotated', None, 'object'),
        ('class', 2, 'object'),
    ]
    assert found.suspects[0].box == [40, 5, 15, 25]
    assert found.confusion == {
        'tote': {'tote': 0, 'object': 1, 'missed': 0},
        'object': {'tote': 0, 'object': 1, 'missed': 0},
        'background': {'tote': 0, 'object': 1},
    }
