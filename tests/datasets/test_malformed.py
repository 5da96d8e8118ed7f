"""Malformed files, each through the data set and through the audit: the documented error or count, nothing else."""

import gzip
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import coco_files
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from armbench_mmdet.audit import audit_data_set
from armbench_mmdet.datasets import ArmbenchDataset, coco, images
from armbench_mmdet.datasets.armbench import KEPT_IN_PART
from armbench_mmdet.errors import InputError

AREA = coco_files.WIDTH * coco_files.HEIGHT
TOTE, BOX = (one['segmentation'][0] for one in coco_files.document()['annotations'][:2])
HOLE = [20, 20, 30, 20, 30, 30]
Change = Callable[[dict[str, Any]], Any]
"""Changes a document in place, or returns what stands in the file instead."""


class Case(NamedTuple):
    """A change to a sound file, and what has to come of it.

    ``error`` is what the data set raises; without one it loads, ``left_out`` is the reason it gives for one record, and
    ``says`` is in a line that it logs.
    """

    name: str
    change: Change
    audit: str
    error: str = ''
    left_out: str = ''
    says: str = ''


def text(edit: Callable[[str], str | bytes]) -> Change:
    """Change the file as text; what is still text is written as UTF-8."""
    return lambda document: getattr(edited := edit(json.dumps(document)), 'encode', lambda: edited)()


def top(**values: Any) -> Change:
    """Set keys of the file; None removes a key."""
    return lambda document: _set(document, values)


def setter(key: str, row: int) -> Callable[..., Change]:
    """Set keys of a record of a list."""
    return lambda **values: lambda document: _set(document[key][row], values)


image, annotation, category = (setter(key, 1) for key in ('images', 'annotations', 'categories'))
first = setter('annotations', 0)


def _set(record: dict[str, Any], values: dict[str, Any]) -> None:
    record |= values
    for key in [key for key, value in values.items() if value is None]:
        del record[key]


def categories(*names: str, first: int = 1) -> Change:
    """Other names, of ids that count from ``first``."""
    return top(categories=[{'id': i, 'name': name} for i, name in enumerate(names, first)])


def each(change: Callable[[dict[str, Any]], dict[str, Any]] = dict, **values: Any) -> Change:
    """Change every annotation."""
    return lambda document: [_set(one, change(one) | values) for one in document['annotations']] and None


def repeated(times: int) -> Change:
    return lambda d: d['annotations'].extend(d['annotations'][1] | {'id': 10 + i} for i in range(times))


def triangle(one: dict[str, Any]) -> dict[str, Any]:
    return {'segmentation': [one['segmentation'][0][:6]]}


def boxes(write: Callable[..., list[float]]) -> Change:
    """Another way to write boxes, which are moved with their masks to where no two ways agree."""

    def boxed(one: dict[str, Any]) -> dict[str, Any]:
        x, y, w, h = one['bbox'][0] + 7, one['bbox'][1], one['bbox'][2] - 9, one['bbox'][3] / 2
        return {'area': w * h, 'bbox': write(x, y, w, h), 'segmentation': [[x, y, x + w, y, x + w, y + h, x, y + h]]}

    return each(boxed)


def rle(counts: Any, height: int = coco_files.HEIGHT, width: int = coco_files.WIDTH) -> dict[str, Any]:
    return {'size': [height, width], 'counts': counts}


STRUCTURE, MALFORMED, FOREIGN = 'json-structure', 'json-malformed', 'not-coco'
TEXT, FLAT = 'numbers-as-text', 'polygons-flat'
NO_MASK = ('without a mask', 'degenerate', 'does not fit')
CASES = [
    # The text as such.
    Case('empty', text(lambda t: ''), FOREIGN, 'the file is empty'),
    Case('cut short', text(lambda t: t[:300]), MALFORMED, 'line 1, column 301: .*truncated'),
    Case('trailing comma', text(lambda t: '\n' + t[:-1] + ',}'), MALFORMED, 'line 2, column .*trailing comma'),
    Case('single quotes', text(lambda t: t.replace('"', "'")), MALFORMED, 'line 1, column 2'),
    Case('NaN', text(lambda t: t.replace('2091', 'NaN').replace('121', '-Infinity')), 'numbers-missing'),
    Case('nested without end', text(lambda t: t[:-1] + ',"x":' + '[' * 100_000), MALFORMED, 'nested too deeply'),
    Case('binary', text(lambda t: bytes(range(256))), MALFORMED, 'invalid character'),
    Case('gzip, cut short', text(lambda t: gzip.compress(t.encode())[:100]), MALFORMED, 'ended before'),
    # Something else.
    Case('a Git LFS pointer', text(lambda t: 'version https://git-lfs.github.com/spec/v1\n'), FOREIGN, 'git lfs pull'),
    Case('an archive', text(lambda t: b'PK\x03\x04' + t.encode()), FOREIGN, 'ZIP archive: unpack it'),
    Case('XML', text(lambda t: '<?xml version="1.0"?><annotation/>'), FOREIGN, 'Pascal VOC'),
    Case('LabelMe', lambda d: {'shapes': [], 'imagePath': 'A.jpg', 'imageData': None}, FOREIGN, 'is LabelMe'),
    Case('VIA', lambda d: {'A.jpg1': {'filename': 'A.jpg', 'regions': []}}, FOREIGN, "VIA's own JSON"),
    Case('CreateML', lambda d: [{'image': 'A.jpg', 'annotations': []}], FOREIGN, 'is CreateML'),
    Case('results', lambda d: [{'image_id': 1, 'score': 1.0, 'bbox': []}], FOREIGN, 'results of a model'),
    Case('not UTF-8', text(lambda t: t.encode().replace(b'B.jpg', b'\xff.jpg')), STRUCTURE, 'utf-8'),
    # The frame.
    Case('a list', lambda d: [d], STRUCTURE, 'Expected `object`, got `array`'),
    Case('no images', top(images=None), STRUCTURE, 'missing required field `images`'),
    Case('no annotations', top(annotations=None), FOREIGN, 'images without annotations: `tools/infer.py'),
    Case('images as object', top(images={}), STRUCTURE, r'Expected `array`, got `object` - at `\$.images`'),
    Case('null annotation', lambda d: d['annotations'].append(None), STRUCTURE, r'`null` - at `\$.annotations\[3\]`'),
    Case('category without name', top(categories=[{'id': 1}]), STRUCTURE, r'field `name` - at `\$.categories\[0\]`'),
    # Images.
    Case('image without id', image(id=None), STRUCTURE, r'missing required field `id` - at `\$.images\[1\]`'),
    Case('image id as text', image(id='2'), TEXT, says=r'numbers are written as text.*`\$.images\[1\].id`'),
    Case('image id as a name', image(id='B'), STRUCTURE, r'Expected `int`, got `str` - at `\$.images\[1\].id`'),
    Case('empty file name', image(file_name=''), STRUCTURE, r'Expected `str` of length >= 1 - at `\$.images\[1\].f'),
    Case('NUL in file name', image(file_name='a\0b'), STRUCTURE, r'Expected `str` matching.* - at `\$.images\[1\].f'),
    Case('zero width', image(width=0), STRUCTURE, r'Expected `int` >= 1 - at `\$.images\[1\].width`'),
    Case('fraction of a height', image(height=47.5), STRUCTURE, r'got `float` - at `\$.images\[1\].height`'),
    # Annotations.
    Case('annotation without id', annotation(id=None), STRUCTURE, r'field `id` - at `\$.annotations\[1\]`'),
    Case('three box numbers', annotation(bbox=[1, 2, 3]), STRUCTURE, r'annotation 2: bbox must have 4 numbers'),
    Case('box of text', annotation(bbox=['10.5', 10, '20', '10.0']), TEXT),
    Case('infinite area', text(lambda t: t.replace('2091', '1e999')), STRUCTURE, 'Number out of range'),
    Case('mask as text', annotation(segmentation='x'), STRUCTURE, 'annotation 2: segmentation: Expected'),
    Case('polygon not nested', annotation(segmentation=BOX), FLAT, says='a polygon not in a list'),
    Case('polygon of points', annotation(segmentation=[[[1, 2], [3, 4], [5, 6]]]), STRUCTURE, 'annotation 2: segment'),
    Case('runs without size', annotation(segmentation={'counts': [1]}), STRUCTURE, 'annotation 2: .*`size`'),
    # Ids.
    Case('image id twice', image(id=1), 'duplicate-image-id', 'images: 2 have id 1'),
    Case('annotation id twice', annotation(id=1), 'duplicate-annotation-id', 'annotations: 2 have id 1'),
    Case('category id twice', category(id=1), 'duplicate-category-id', 'categories: 2 have id 1'),
    Case('orphan', annotation(image_id=5), 'orphan-annotation', 'annotation 2: no image has id 5'),
    # Categories.
    Case('unknown name', categories('tote', 'item'), 'category-unknown', r"'item' \(id 2, 2 .*_map={'item': 'object'}"),
    Case('unknown id', annotation(category_id=7), 'category-unknown', r'id 7 \(1 annotations\).*category_map=\{7: '),
    Case('no categories', top(categories=None), 'category-assumed'),
    Case('a category nothing has', categories('tote', 'object', 'background'), 'category-assumed'),
    # Nothing to use.
    Case('empty annotations', top(annotations=[]), 'no-annotations', r'got none of 0(.|\n)*infer\.py CONFIG'),
    Case('no usable mask', each(segmentation=None), 'no-annotations', r'none of 3(.|\n)*3  annotations without a mask'),
    # Masks.
    Case('no mask', annotation(segmentation=None), 'mask-missing', left_out='without a mask'),
    Case('two points', annotation(segmentation=[[1, 2, 3, 4]]), 'mask-degenerate', left_out='degenerate'),
    Case('half a point', annotation(segmentation=[[1, 2, 30, 4, 5, 6, 7]]), 'mask-degenerate', left_out='degenerate'),
    Case('one of two degenerate', annotation(segmentation=[BOX, [1, 2]]), 'polygon-dropped', left_out=KEPT_IN_PART),
    Case('polygon of no area', annotation(segmentation=[[1, 1, 1, 1, 1, 1]]), 'mask-empty'),
    Case('far away', annotation(segmentation=[[0, 0, 1e12, 0, 0, 1e12]]), 'mask-broken', left_out='does not fit'),
    Case('outside', annotation(segmentation=[[70, 5, 90, 5, 90, 20]]), 'mask-outside'),
    Case('over the edge', annotation(segmentation=[[10, 10, 70, 10, 70, 20]]), 'mask-beyond-edge'),
    Case('runs too short', annotation(segmentation=rle([5, 5])), 'mask-broken', left_out='does not fit'),
    Case('runs of another size', annotation(segmentation=rle([AREA], 64, 48)), 'mask-broken', left_out='does not fit'),
    Case('no runs', annotation(segmentation=rle([])), 'mask-broken', left_out='does not fit'),
    Case('broken code', annotation(segmentation=rle('12P')), 'mask-broken', left_out='does not fit'),
    Case('all zeros', annotation(segmentation=rle([AREA])), 'mask-empty'),
    # Boxes, areas and flags.
    Case('no box', annotation(bbox=None), 'box-missing'),
    Case('box over the edge', annotation(bbox=[44.5, 10, 20, 10]), 'box-beyond-edge'),
    Case('over 100 instances', repeated(100), 'image-crowded'),
    Case('empty box', annotation(bbox=[]), 'box-missing'),
    Case('box outside', annotation(bbox=[100, 5, 5, 5]), 'box-outside', left_out='outside the image'),
    Case('tiny box', annotation(bbox=[10, 10, 0.5, 20]), 'box-under-1-px', left_out='under 1 px'),
    Case('box of corners', annotation(bbox=[10.5, 10, 30.5, 20]), 'box-disagrees'),
    Case('box of other runs', annotation(segmentation=rle([500, 10, AREA - 510])), 'box-disagrees'),
    Case('no area', annotation(area=None), 'area-missing'),
    Case('negative area', annotation(area=-5), 'area-not-positive', left_out='no area'),
    Case('area of something else', annotation(area=2000), 'area-disagrees'),
    Case('flagged', annotation(ignore=1), 'annotation-ignored', left_out='flagged'),
    Case('crowd', annotation(iscrowd=1), 'crowd', says='1 totes, 1 objects and 1 crowd regions, which are not used'),
    Case('crowds only', each(iscrowd=1), 'no-annotations', r'got 3 crowd regions; set "iscrowd" to 0'),
    Case('a class of crowds', first(iscrowd=1), 'class-unusable', says='no tote to use: the model cannot .* all 1 are'),
    # Patterns of the whole file.
    Case('no area', each(area=0), 'areas-zero', says='no annotation has an area: those of the masks'),
    Case('areas of boxes', each(lambda a: triangle(a) | {'area': a['bbox'][2] * a['bbox'][3]}), 'areas-mistaken'),
    Case('areas of images', each(area=AREA), 'areas-mistaken', says='3 of 3 areas are those of the images'),
    Case('corners', boxes(lambda x, y, w, h: [x, y, x + w, y + h]), 'boxes-mistaken', 'x1, y1, x2'),
    Case('centres', boxes(lambda x, y, w, h: [x + w / 2, y + h / 2, w, h]), 'boxes-mistaken', 'centre x'),
    Case('rows first', boxes(lambda x, y, w, h: [y, x, h, w]), 'boxes-mistaken', 'y, x, height'),
    Case('a hole', first(segmentation=[TOTE, HOLE]), 'polygons-nested', says='COCO knows no holes'),
    Case('annotation twice', repeated(1), 'annotation-repeated'),
    Case('bare image', lambda d: d['annotations'].pop() and None, 'image-without-annotation'),
    Case('image twice', image(file_name='./A.jpg'), 'image-listed-twice', says='A.jpg: 2 times.*merge them'),
    Case('one class', categories('Object', first=2), 'category-unknown', 'id 1 .1 annotations'),
    Case('only one class', lambda d: [d[k].pop(0) for k in ('annotations', 'categories')] and None, 'class-absent'),
]


def audited(root: Path) -> tuple[dict[str, int], int]:
    """Counts of what the audit finds, and its exit status."""
    audit = audit_data_set(root, workers=1)
    return {finding.kind: finding.count for finding in audit.findings}, audit.exit_status(strict=False)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What data sets log."""
    lines: list[str] = []
    monkeypatch.setattr(images, 'print_log', lambda message, *_: lines.append(message))
    return lines


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_the_data_set_and_the_audit_say_what_is_wrong(tmp_path, said, case):
    document = coco_files.document()
    changed = case.change(document)
    coco_files.write_split(tmp_path, document if changed is None else changed)
    kinds, status = audited(tmp_path)
    assert kinds.get(case.audit, 0) >= 1, kinds
    if case.error:
        with pytest.raises(InputError, match=case.error) as caught:
            ArmbenchDataset(data_root=tmp_path)
        assert 'train.json' in str(caught.value)
        assert status == 2
        return
    data_set = ArmbenchDataset(data_root=tmp_path)
    assert re.search(case.says, '\n'.join(said))
    assert len(data_set.skipped) == bool(case.left_out), data_set.skipped
    for reason, ids in data_set.skipped.items():
        assert case.left_out in reason
        assert ids.tolist() == [2]
    assert (2 in data_set.ground_truth.load().ids) == (case.left_out not in NO_MASK), 'what has no mask has no score'
    assert_nothing_vanished(data_set, document)


REMOVED = [('corners', 'bbox'), ('centres', 'bbox'), ('areas of boxes', 'area'), ('areas of images', 'area')]
REMEDIES = [(name, f"remove the key '{key}' from all annotations", {key: None}) for name, key in REMOVED]
REMEDIES.append(('crowds only', 'set "iscrowd" to 0', {'iscrowd': 0}))


@pytest.mark.parametrize(('name', 'remedy', 'values'), REMEDIES)
def test_a_remedy_followed_to_the_letter_works(tmp_path, said, name, remedy, values):
    document = coco_files.document()
    next(case for case in CASES if case.name == name).change(document)
    coco_files.write_split(tmp_path, document)
    try:
        ArmbenchDataset(data_root=tmp_path)
    except InputError as error:
        said.append(str(error))
    assert remedy in '\n'.join(said)
    each(**values)(document)
    coco_files.write_split(tmp_path, document)
    data_set = ArmbenchDataset(data_root=tmp_path)
    assert sum(len(data_set.get_cat_ids(i)) for i in range(2)) == 3
    assert audited(tmp_path)[0].keys() <= {*NOTHING, 'box-missing', 'area-missing', 'areas-zero'}


NOTHING = {'split-missing', 'subset-missing'}


def test_every_broken_record_is_told_at_once(tmp_path):
    document = coco_files.document()
    for change in (image(width=None), annotation(image_id=None), first(category_id='tote')):
        change(document)
    problems = coco.parse_coco(json.dumps(document).encode())[1]
    places = [re.search(r'`\$\.(.*)`', problem.detail)[1] for problem in problems]
    assert places == ['images[1]', 'annotations[0].category_id', 'annotations[1]']
    assert {problem.kind for problem in problems} == {STRUCTURE}


def test_a_sound_file_has_nothing_to_say(tmp_path):
    coco_files.write_split(tmp_path, coco_files.document())
    assert audited(tmp_path)[0].keys() == NOTHING
    data_set = ArmbenchDataset(data_root=tmp_path)
    assert data_set.skipped == {}
    assert_nothing_vanished(data_set, coco_files.document())


def assert_nothing_vanished(data_set: ArmbenchDataset, document: dict[str, Any]) -> None:
    """Every annotation is an instance or was counted as left out."""
    left_out = sum(len(ids) for reason, ids in data_set.skipped.items() if reason != KEPT_IN_PART)
    instances = sum(len(data_set.get_data_info(i)['instances']) for i in range(len(data_set)))
    assert instances + left_out == len(document['annotations'])
    assert len(data_set) == len(document['images'])


NUMBERS = st.integers() | st.integers(-3, 70) | st.floats(allow_nan=False, allow_infinity=False) | st.floats(-100, 200)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=4) | st.sampled_from(['tote', 'Object ', 'A.jpg'])
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=3), inner))
MASKS = st.lists(st.lists(st.floats(-1e3, 1e3) | st.integers(-9, 99), max_size=12), max_size=3) | st.builds(
    rle, st.lists(st.integers(-5, 4000), max_size=5) | st.text(max_size=6) | st.text('0123456789PQab', max_size=6)
)


@st.composite
def documents(draw: st.DrawFn) -> Any:
    """A sound file in which some values, keys or records were changed."""
    document = coco_files.document()
    for _ in range(draw(st.integers(1, 4))):
        records = document[draw(st.sampled_from(['images', 'annotations', 'annotations', 'annotations', 'categories']))]
        record = draw(st.sampled_from(records))
        name = draw(st.sampled_from([*sorted(record), 'segmentation']))
        match draw(st.integers(0, 9)):
            case 0:
                record.pop(name, None)
            case 1:
                record[name] = draw(JSON)
            case _:
                record[name] = draw(MASKS if name == 'segmentation' else SCALARS)
    if draw(st.integers(0, 15)) == 0:
        document[draw(st.sampled_from(sorted(document)))] = draw(JSON | st.lists(JSON, max_size=4))
    return document


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents())
def test_any_structure_gives_an_error_or_a_full_account(document):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        coco_files.write_split(root, document)
        kinds, status = audited(root)
        try:
            data_set = ArmbenchDataset(data_root=root)
        except InputError:
            assert status == 2
            return
        assert_nothing_vanished(data_set, document)
        assert kinds or not data_set.skipped, 'the audit did not notice what the data set left out'
