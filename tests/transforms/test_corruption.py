"""Corrupted photos."""

import numpy as np
import pytest

from armbench_mmdet.errors import InputError
from armbench_mmdet.transforms.corruption import CORRUPTIONS, SEVERITIES, WAREHOUSE, CorruptImage


@pytest.fixture(scope='module')
def photo() -> np.ndarray:
    y, x = np.mgrid[:96, :128]
    return np.stack([x * 2, y * 2, (x // 8 + y // 8) % 2 * 200 + 20], axis=-1).astype(np.uint8)


def corrupted(photo: np.ndarray, corruption: str, severity: int, path: str = 'a/1.jpg') -> np.ndarray:
    results = {'img': photo.copy(), 'img_path': path}
    return CorruptImage(corruption, severity).transform(results)['img']


@pytest.mark.parametrize('corruption', CORRUPTIONS)
def test_corruption(photo: np.ndarray, corruption: str) -> None:
    assert np.array_equal(corrupted(photo, corruption, 0), photo)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    changes = []
    for severity in SEVERITIES:
        image = corrupted(photo, corruption, severity)
        assert (image.shape, image.dtype) == (photo.shape, photo.dtype)
        assert np.array_equal(image, corrupted(photo, corruption, severity, path='elsewhere/1.jpg'))
        changes.append(np.abs(image.astype(float) - photo).mean())
    assert min(changes) > 0.5
    assert corruption not in WAREHOUSE or changes == sorted(changes)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_other_photos_are_corrupted_in_other_ways(photo: np.ndarray) -> None:
    for corruption in ('gaussian_noise', 'arm_motion'):
        assert not np.array_equal(corrupted(photo, corruption, 3), corrupted(photo, corruption, 3, path='2.jpg'))


@pytest.mark.parametrize(('corruption', 'severity'), [('rain', 1), ('fog', 6), ('fog', -1)])
def test_unknown_ones_are_refused(corruption: str, severity: int) -> None:
    with pytest.raises(InputError, match='must be'):
        CorruptImage(corruption, severity)
