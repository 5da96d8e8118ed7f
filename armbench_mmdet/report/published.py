"""Numbers that others published on ARMBench, with what they stand on."""

from __future__ import annotations

import dataclasses

from armbench_mmdet.datasets.locations import SUBSETS
from armbench_mmdet.evaluation.result import MISSING
from armbench_mmdet.report.tables import Table, cells

MIX, ZOOMED_OUT, SAME_OBJECT = SUBSETS


@dataclasses.dataclass(frozen=True)
class Published:
    """One publication's mask scores.

    Attributes:
        source: Who, with which model.
        where: Where to read it.
        scores: By subset, as written there.
        split: The split evaluated, ``not stated`` where we do not know it.
        protocol: What was measured.
        caveat: Why it may not stand beside other numbers.
    """

    source: str
    where: str
    scores: dict[str, str]
    split: str
    protocol: str
    caveat: str


PUBLISHED = (
    Published(
        source='ARMBench paper, Mask R-CNN R50-FPN',
        where='arXiv 2303.16382',
        scores={MIX: '0.72 / 0.61', ZOOMED_OUT: '0.25 / 0.19', SAME_OBJECT: '0.11 / 0.10'},
        split='not stated',
        protocol='AP50 / AP75 of masks',
        caveat='Trained on mix-object-tote only.',
    ),
    Published(
        source='SAM-B fine-tuned + DETR',
        where='github.com/ArshT/ARMBENCH_Object_Segmentation',
        scores={MIX: '0.86 / 0.76', ZOOMED_OUT: '0.12 / 0.08', SAME_OBJECT: '0.24 / 0.22'},
        split='not stated',
        protocol='AP50 / AP75 of masks, low scores dropped first',
        caveat='Drops scores of 0.75 and less before AP (0.6 and less on same-object), which COCO’s protocol does not.',
    ),
    Published(
        source='STATS 507 project, Mask R-CNN',
        where='course project',
        scores={MIX: '0.6971 / 0.5389, mAP 0.5422'},
        split='val',
        protocol='AP50 / AP75 and mAP, meant to be of masks',
        caveat='Boxes without masks went into the mask evaluation, whose loader turns each box into a rectangle: '
        'this is the AP of rectangles.',
    ),
    Published(
        source='STATS 507 project, Mask2Former Swin-B',
        where='course project',
        scores={MIX: '0.0007 / 0.0000, mAP 0.0001'},
        split='not stated',
        protocol='AP50 / AP75 and mAP of masks',
        caveat='Labels shifted by −1 in training and not shifted back; overlapping masks flattened into one id map.',
    ),
)


def published_table() -> Table:
    """Every published number with its split, protocol and caveat."""
    rows = [
        cells(
            *(f'{one.source} ({one.where})', *(one.scores.get(subset, MISSING) for subset in SUBSETS)),
            *(one.split, one.protocol, one.caveat),
        )
        for one in PUBLISHED
    ]
    header = ['source', *SUBSETS, 'split', 'protocol', 'caveat']
    return Table('Published by others, on the ARMBench photos', header, rows, text_columns=len(header))
