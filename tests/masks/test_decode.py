import numpy as np
import pytest
from pycocotools import mask as coco_mask

from armbench_mmdet.masks import encode as decode


@pytest.mark.parametrize('seed', range(20))
def test_counts_agree_with_pycocotools(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 300, 2).tolist()
    mask = (rng.random((height, width)) < rng.choice([0, 0.001, 0.5, 1])).astype(np.uint8)
    compressed = coco_mask.encode(np.asfortranarray(mask))
    counts = decode.decode_counts(compressed['counts'].decode())
    flat = mask.ravel(order='F')
    np.testing.assert_array_equal(np.repeat(np.arange(len(counts)) % 2, counts), flat)
    np.testing.assert_array_equal(decode.decode_mask(compressed), mask)
    assert decode.fits_image(counts, (height, width), height, width)
    assert not decode.fits_image(counts, (height + 1, width), height, width)


@pytest.mark.parametrize('text', ['P', '12P', 'a\x7f', '\x00', 'é'])
def test_a_broken_code_is_noticed_before_c_code_sees_it(text):
    assert decode.decode_counts(text) == []
