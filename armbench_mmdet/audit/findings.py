"""The kinds of things an audit finds, and a collection that counts them and keeps the first of each."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from armbench_mmdet.datasets import coco
from armbench_mmdet.datasets.records import KEPT_IN_PART

SEVERITIES = ERROR, WARNING, NOTE = 'error', 'warning', 'note'
SHOWN = 5
"""Examples shown of each kind in each place."""

KINDS: dict[str, tuple[str, str]] = {
    coco.MALFORMED: (ERROR, 'the annotation file is no JSON'),
    coco.STRUCTURE: (ERROR, 'a record lacks a key or has a value of a wrong type'),
    coco.DUPLICATE_IMAGE: (ERROR, 'an image id occurs twice'),
    coco.DUPLICATE_ANNOTATION: (ERROR, 'an annotation id occurs twice'),
    coco.DUPLICATE_CATEGORY: (ERROR, 'a category id occurs twice'),
    coco.FOREIGN: (ERROR, 'the annotation file is something else than COCO'),
    coco.BOXES: (ERROR, 'boxes are written by another convention'),
    coco.ORPHAN: (ERROR, 'an annotation belongs to no image of the file'),
    'no-annotations': (ERROR, 'the file has no annotation that can be used'),
    'category-unknown': (ERROR, 'annotations have a category that is neither tote nor object'),
    'category-assumed': (WARNING, 'something about the categories was assumed'),
    'class-absent': (NOTE, 'the file has only one of the two classes'),
    'class-unusable': (WARNING, 'a class has annotations, but none to learn or to score'),
    coco.TEXT: (WARNING, 'numbers are not written as COCO writes them'),
    coco.NAN: (WARNING, 'the file has numbers that JSON does not have'),
    coco.FLAT: (WARNING, 'polygons are not written as COCO writes them'),
    coco.NESTED: (WARNING, 'polygons may be meant as holes'),
    coco.AREAS: (WARNING, 'the areas of the file are not those of the masks'),
    coco.NO_AREAS: (NOTE, 'the file gives no areas'),
    coco.REPEATED: (WARNING, 'a split lists the same image file twice'),
    'image-missing': (ERROR, 'the image file is not there'),
    'image-unreadable': (ERROR, 'the image file is damaged, or in no format that can be decoded'),
    'image-size': (ERROR, 'the image file has another size than the annotation file says'),
    'image-exif-rotation': (WARNING, 'EXIF asks for a turn that no size tells; programs differ in whether they obey'),
    'image-dark': (WARNING, 'the image has 16 bits and uses the lower ones, so it is nearly black'),
    'image-copied': (WARNING, 'two image files of a split have the same content'),
    'image-unused': (NOTE, 'an image file belongs to no split'),
    'image-without-annotation': (NOTE, 'the image has no annotation'),
    'image-crowded': (WARNING, 'over 100 instances of a class: COCO scores 100, so nothing can score 1.0 here'),
    'mask-missing': (ERROR, 'the annotation has no mask, so it is left out'),
    'mask-degenerate': (ERROR, 'no polygon has three points and whole points, so the annotation is left out'),
    'mask-broken': (ERROR, 'run lengths do not fit the image, or a polygon is far away; the annotation is left out'),
    'mask-empty': (ERROR, 'the mask covers nothing'),
    'mask-outside': (ERROR, 'the mask lies outside the image'),
    'mask-beyond-edge': (WARNING, 'the mask reaches over the edge of the image'),
    'polygon-dropped': (WARNING, 'a degenerate polygon was dropped, others of the annotation remain'),
    'box-missing': (WARNING, 'the annotation has no box; that of its mask is used'),
    'box-beyond-edge': (NOTE, 'the box reaches over the edge of the image'),
    'box-outside': (ERROR, 'the box lies outside the image, so the annotation is left out'),
    'box-under-1-px': (WARNING, 'the box is under one pixel wide or high, so the annotation is left out'),
    'box-disagrees': (WARNING, 'the box is not the one around the mask'),
    'area-missing': (WARNING, 'the annotation has no area; that of its mask is used'),
    'area-not-positive': (ERROR, 'the area is zero or negative, so the annotation is left out'),
    'area-disagrees': (WARNING, 'the area is not that of the mask'),
    'annotation-repeated': (WARNING, 'two annotations of an image have the same category and box'),
    'annotation-ignored': (NOTE, 'the annotation is flagged "ignore", so it is left out'),
    'crowd': (NOTE, 'the annotation is a crowd region: neither trained on nor counted'),
    'split-missing': (WARNING, 'the annotation file is not there'),
    'split-absent': (NOTE, 'the transfer set has no such split; it is needed for testing only'),
    'subset-missing': (NOTE, 'the data set has no such subset'),
    'same-name-in-splits': (ERROR, 'an image file is in two splits'),
    'same-content-in-splits': (ERROR, 'an image is in two splits, by content'),
}
"""Kind to severity and meaning."""

LEFT_OUT_KINDS = {
    'annotations flagged "ignore"': 'annotation-ignored',
    'annotations without a mask': 'mask-missing',
    'annotations with degenerate polygons only': 'mask-degenerate',
    'annotations with a mask that does not fit the image': 'mask-broken',
    'annotations with a box outside the image': 'box-outside',
    'annotations with a box under 1 px': 'box-under-1-px',
    'annotations with no area': 'area-not-positive',
    KEPT_IN_PART: 'polygon-dropped',
}
"""Why a data set leaves an annotation out, to the kind of finding."""


@dataclass
class Finding:
    """One kind of thing found in one place, ``subset/split``."""

    kind: str
    place: str
    severity: str
    meaning: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Findings:
    """All findings of an audit."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Finding] = {}

    def add(self, kind: str, place: str, examples: Iterable[str], count: int | None = None) -> None:
        """Count things found.

        Args:
            kind: A key of :data:`KINDS`.
            place: ``subset/split``.
            examples: A line for each.
            count: How many there are, if ``examples`` are only some of them.
        """
        lines = list(examples)
        number = len(lines) if count is None else count
        if number:
            finding = self._found.setdefault((kind, place), Finding(kind, place, *KINDS[kind]))
            finding.count += number
            finding.examples += lines

    def has(self, kind: str, place: str) -> bool:
        """Whether something of a kind was found in a place."""
        return (kind, place) in self._found

    def sorted(self) -> list[Finding]:
        """Errors first, then warnings, then notes; each in the order of :data:`KINDS`."""
        kinds = list(KINDS)
        return sorted(self._found.values(), key=lambda f: (SEVERITIES.index(f.severity), kinds.index(f.kind), f.place))

    def count(self, severity: str) -> int:
        """Number of things found of a severity."""
        return sum(f.count for f in self._found.values() if f.severity == severity)

    def exit_status(self, strict: bool) -> int:
        """2 with errors, 1 with warnings if ``strict``, else 0."""
        return 2 if self.count(ERROR) else int(strict and self.count(WARNING) > 0)
