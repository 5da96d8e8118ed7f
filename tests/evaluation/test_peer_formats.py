"""Files that other models' software wrote, see ``peers/README.md``: scored end to end, by name and by number."""

import json
from pathlib import Path

import numpy as np
import pytest
from peer_results import Row, numbers_of, reference

from armbench_mmdet.datasets.ground_truth import GroundTruthSource
from armbench_mmdet.evaluation.coco_results import drift_table, evaluate_results
from armbench_mmdet.evaluation.result import Result

PEERS = Path(__file__).parent / 'peers'
ANN_FILE = PEERS / 'mix-object-tote/test.json'
LOSSLESS = 'detectron2/coco_instances_results.json'


def result_of(file: str) -> Result:
    return evaluate_results(PEERS / file, GroundTruthSource(str(ANN_FILE)))


def by_the_book(file: str) -> tuple[Row, list[Row]]:
    """The ground truth, and the predictions of a file under its ids, with what the format lacks."""
    truth, content = (json.loads(path.read_text()) for path in (ANN_FILE, PEERS / file))
    ids = {Path(image['file_name']).stem: image['id'] for image in truth['images']}
    rows = content['annotations'] if isinstance(content, dict) else content
    table = {image['id']: Path(image['file_name']).stem for image in content['images']} if rows is not content else {}
    for row in rows:
        name = table.get(row['image_id'], row['image_id'])
        row |= {'image_id': ids.get(name, name), 'score': row.get('score', 1.0)}
    return truth, rows


@pytest.mark.parametrize(
    ('file', 'flags'),
    [
        (LOSSLESS, []),
        ('rfdetr/results.json', ['34 predictions have no box']),
        ('ultralytics/predictions.json', []),
        ('supervision/annotations.json', ['no prediction has a score']),
    ],
)
def test_numbers_are_those_of_pycocotools_on_the_file(file: str, flags: list[str]) -> None:
    result, lossless = result_of(file), result_of(LOSSLESS)
    truth, rows = by_the_book(file)
    for iou_type in ('segm', 'bbox') if 'bbox' in rows[0] else ('segm',):
        np.testing.assert_allclose(numbers_of(result, iou_type), reference(truth, rows, iou_type), atol=1e-9)
    is_lossless = not file.startswith('supervision')  # for masks: five places of a score keep their order here
    assert np.allclose(numbers_of(result, 'segm'), numbers_of(lossless, 'segm'), rtol=0, atol=1e-9) == is_lossless
    drift = [line.split()[-1] for line in drift_table(result, lossless).splitlines() if line.startswith('segm')]
    assert len(drift) == 9 - sum(value is None for value in result.segm.numbers().values())
    assert (set(drift) == {'+0.000000'}) == is_lossless
    found = result.identity.extra['flags']
    assert len(found) == len(flags)
    assert all(wanted in one for wanted, one in zip(flags, found, strict=True)), found


def test_older_ultralytics_wrote_stems_alone(tmp_path: Path) -> None:
    file = 'ultralytics/predictions.json'
    rows = json.loads((PEERS / file).read_text())
    assert not any(isinstance(row.pop('file_name'), int) for row in rows)
    (tmp_path / 'predictions.json').write_text(json.dumps(rows))
    older = evaluate_results(tmp_path / 'predictions.json', GroundTruthSource(str(ANN_FILE)))
    assert older.segm == result_of(file).segm
