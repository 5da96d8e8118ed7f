"""Contact sheets, and the command that draws them."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from transform_samples import painted_info

from armbench_mmdet.visualization.contact_sheet import AUGMENTATIONS, augmented_cells, draw_sample, make_sheet

REPO = Path(__file__).resolve().parents[2]
CONFIG = 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'


def test_drawing_marks_masks_and_boxes_and_leaves_the_rest() -> None:
    image = np.full((480, 768, 3), 100, np.uint8)
    bitmaps = np.zeros((2, 480, 768), np.uint8)
    bitmaps[0, 20:460, 20:740] = 1
    bitmaps[1, 220:340, 300:500] = 1
    boxes = np.array([[20, 20, 740, 460], [290, 210, 510, 350]])
    out = draw_sample(image, bitmaps, boxes, np.array([0, 1]), ('tote', 'object'))
    changed = (out != image).any(axis=2)
    assert changed[240:330, 310:490].all(), 'an object is filled'
    assert not changed[100:200, 60:280].any(), 'a tote is an outline'
    assert changed[210, 295:505].any(), 'a box is drawn'
    assert not changed[470:].any()
    assert (image == 100).all()


def test_sheet_holds_pictures_of_any_size() -> None:
    cells = [np.full((height, width, 3), 10, np.uint8) for height, width in ((10, 40), (300, 20), (64, 64), (1, 1))]
    sheet = make_sheet(cells, ['a', 'b', 'c', 'd'], columns=3, cell_px=64)
    assert sheet.shape[1] == 3 * 70 + 6
    assert ((sheet == 10).all(axis=2)).sum() >= 64 * 16 + 64 * 4 + 64 * 64 + 64 * 64


def test_one_row_for_each_augmentation(tmp_path: Path) -> None:
    infos = [painted_info(tmp_path / f'{index}.png') for index in range(2)]
    cells, titles = augmented_cells(infos, ('tote', 'object'))
    names = ['unchanged', *(augmentation.__name__ for augmentation in AUGMENTATIONS)]
    assert titles == [name for name in names for _ in infos]
    assert all((cell != cells[0]).any() if cell.shape == cells[0].shape else True for cell in cells[2:])


@pytest.mark.slow
def test_the_command_line(minibench_root: Path, tmp_path: Path) -> None:
    out = tmp_path / 'new' / 'sheet.png'
    for more, width, fault in (
        (['--num', '3', '--columns', '2'], 2 * 106 + 6, ''),
        (['--augmentations', '--columns', '3'], 3 * 106 + 6, ''),
        (['--num', '1', '--out', str(tmp_path / 'sheet.txt')], 0, 'must end in .png'),
    ):
        command = [sys.executable, 'tools/browse_data.py', CONFIG, '--data-root', str(minibench_root)]
        command += ['--cell-px', '100', '--out', str(out), *more]
        environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
        done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == (2 if fault else 0), done.stderr
        assert fault in done.stderr
        assert fault or cv2.imread(str(out)).shape[1] == width
