"""The anatomy of a result, against references that walk over detections one by one, or look at every pixel."""

import functools
from collections import Counter

import numpy as np
import pytest
from coco_random import CATEGORIES, encode, matching_of, random_dataset
from coco_reference import pycocotools_evaluate
from pycocotools import mask as mask_api

from armbench_mmdet.evaluation.anatomy import VERDICTS, error_anatomy, operations, pick_scores, segmentation_errors
from armbench_mmdet.evaluation.matches import match_table
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


def largest(pairs):
    return max(pairs, key=lambda pair: pair[0], default=(0, None))


def matched_by_hand(truth, detections):
    """Each detection with its overlaps, and the annotation that it has."""
    annotated = {a['category_id'] for a in truth['annotations']}
    counted, owned = [], {}
    for d in detections:
        near = [a for a in truth['annotations'] if a['image_id'] == d['image_id']]
        pairs = [(mask_api.iou([d['segmentation']], [a['segmentation']], [0])[0, 0], a) for a in near]
        own = [(iou, a) for iou, a in pairs if a['category_id'] == d['category_id']]
        other = [(iou, a) for iou, a in pairs if a['category_id'] != d['category_id']]
        iou, instance = largest([(iou, a) for iou, a in own if a['id'] not in owned])
        one = {**d, 'own': largest(own), 'other': largest(other), 'iou': iou, 'has': instance if iou >= 0.5 else None}
        if one['has']:
            owned[instance['id']] = one
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
    found = [(one['category_id'], one['has'] is not None) for one in counted]
    now = mean_ap(found, instances)
    costs, usable = {}, set()
    for kind in KINDS[:-1]:
        fixed, taken = [], set()
        for one, as_it_is in zip(counted, found, strict=True):
            if one['has'] or kind_by_hand(one) != kind:
                fixed.append(as_it_is)
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
    costs['missed'] = mean_ap(found, left) - now
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
        boxes = {one['score']: mask_api.toBbox(one['segmentation']).tolist() for one in sure}
        assert found.suspected == len(expected)
        assert [(one.score, one.fault, one.annotation_id) for one in found.suspects] == expected[:20]
        assert all(one.box == boxes[one.score] for one in found.suspects)
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
    silent = matching_of(truth, [])
    for one in operations(silent, match_table(silent), {}).values():
        assert (one.best, one.calibration_error, one.reliability) == (None, None, [])
        assert {point.recall for point in one.curve} == {0.0}
    empty = {'images': [], 'annotations': [], 'categories': CATEGORIES}
    assert anatomy_of(empty, []) == Anatomy(costs={}, lrp={}, confusion={'background': {}}, suspects=[], suspected=0)


def counted_by_pycocotools(truth, detections, category: int) -> list[tuple[float, bool]]:
    """Score and rightness of each detection that counts, as pycocotools matches at IoU 0.5."""
    found = []
    for image in pycocotools_evaluate(truth, detections, 'segm').evalImgs:
        if image is not None and image['category_id'] == category and image['aRng'] == [0, 1e10]:
            rows = zip(image['dtScores'], image['dtMatches'][0], image['dtIgnore'][0], strict=True)
            found += [(score, match > 0) for score, match, ignored in rows if not ignored]
    return found


def point_by_hand(rows: list[tuple[float, bool]], instances: int, threshold: float) -> list[float | None]:
    kept = [is_right for score, is_right in rows if score >= threshold]
    return [sum(kept) / len(kept) if kept else None, sum(kept) / instances, 2 * sum(kept) / (len(kept) + instances)]


@pytest.mark.parametrize('seed', range(6))
def test_points_and_calibration(seed: int) -> None:
    truth, detections = random_dataset(seed, images=8)
    matching = matching_of(truth, detections)
    result = operations(matching, match_table(matching), {'object': 0.4})
    for category in truth['categories']:
        rows = counted_by_pycocotools(truth, detections, category['id'])
        own = [a for a in truth['annotations'] if a['category_id'] == category['id'] and not a.get('iscrowd')]
        if not own:
            assert category['name'] not in result
            continue
        one = result[category['name']]

        by_hand = functools.partial(point_by_hand, rows, len(own))
        for point in (*one.curve, one.best, *([one.of_val] if category['name'] == 'object' else [])):
            assert [point.precision, point.recall, point.f1] == pytest.approx(by_hand(point.threshold))
        assert one.best.f1 == pytest.approx(max(by_hand(score)[2] for score, _ in rows))
        assert (one.of_val.threshold if one.of_val else None) == (0.4 if category['name'] == 'object' else None)
        bins = [[row for row in rows if min(int(row[0] * 10), 9) == number] for number in range(10)]
        gaps = [abs(np.mean([s for s, _ in b]) - np.mean([r for _, r in b])) * len(b) for b in bins if b]
        assert one.calibration_error == pytest.approx(sum(gaps) / len(rows))
        assert sum(one.detections for one in one.reliability) == len(rows)


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


def bitmaps_of(rows, image, category):
    """The masks of a class in an image, without crowds."""
    own = [one for one in rows if (one['image_id'], one['category_id']) == (image['id'], category)]
    return [mask_api.decode(one['segmentation']).astype(bool) for one in own if not one.get('iscrowd')]


def picks_by_hand(truth, detections) -> dict[str, float] | None:
    """The definitions, pixel by pixel."""
    shares, errors = {1: [], 3: [], 5: []}, []
    detections = sorted(detections, key=lambda one: -one['score'])
    sure = [one for one in detections if one['score'] >= 0.5]
    for image in truth['images']:
        objects, found, counted = (bitmaps_of(rows, image, 2) for rows in (truth['annotations'], detections, sure))
        errors.append(abs(len(counted) - len(objects)))
        picked: set[int] = set()
        successes = []
        for mask in found:
            aim = aimed_at(mask)
            target = next((n for n, g in enumerate(objects) if aim and g[aim] and n not in picked), None)
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
        found, expected = pick_scores(matching_of(truth, detections), 'object'), picks_by_hand(truth, detections)
        if expected is None:
            assert found is None
            continue
        for name, value in expected.items():
            assert getattr(found, name) == pytest.approx(value), (seed, name)
        seen.add(round(found.success_1, 3))
    assert len(seen) > 4


def test_of_equally_interior_points_the_first_is_picked() -> None:
    y, x = np.mgrid[:40, :80] + 0.5
    truth = {'images': [{'id': 1, 'height': 40, 'width': 80}], 'categories': CATEGORIES}
    for radius in np.arange(6, 19, 0.1):  # a disc about a corner of four pixels, which are as far from the outside
        mask = np.hypot(y - 20, x - 40) < radius
        row = {'image_id': 1, 'category_id': 2, 'score': 0.9, 'segmentation': encode(mask)}
        first = mask & (y < 20) & (x < 40)
        truth['annotations'] = [{**row, 'segmentation': encode(first), 'area': first.sum()}]
        assert pick_scores(matching_of(truth, [row]), 'object').success_1 == 1, radius


def verdicts_by_definition(instances: list[np.ndarray], predictions: list[np.ndarray]) -> list[str]:
    found = []
    for g, truth in enumerate(instances):
        inside = [p for p in predictions if (p & truth).sum() > 0.5 * p.sum()]
        covering = [p for p in predictions if (p & truth).sum() > 0.5 * truth.sum()]
        others = [h for j, h in enumerate(instances) if j != g]
        if any((p & truth).sum() > 0.5 * (p | truth).sum() for p in predictions):
            found.append('detected')
        elif len(inside) >= 2 and (np.any(inside, axis=0) & truth).sum() > 0.5 * truth.sum():
            found.append('over_segmented')
        elif any((p & h).sum() > 0.5 * h.sum() for p in covering for h in others):
            found.append('under_segmented')
        else:
            found.append('missed')
    return found


def test_error_rates_are_the_definitions() -> None:
    seen = Counter()
    for seed in range(30):
        truth, detections = random_dataset(seed, images=6)
        rates = segmentation_errors(matching_of(truth, detections))
        sure = [one for one in detections if one['score'] >= 0.5]
        for category, name in NAMES.items():
            expected = Counter()
            for image in truth['images']:
                masks = (bitmaps_of(rows, image, category) for rows in (truth['annotations'], sure))
                expected.update(verdicts_by_definition(*masks))
            assert rates[name].instances == expected.total()
            for verdict in VERDICTS if expected else ():
                assert getattr(rates[name], verdict) == pytest.approx(expected[verdict] / expected.total())
            seen += expected
    assert set(seen) == set(VERDICTS)
