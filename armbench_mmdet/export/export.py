"""Export: a file, checked, or none."""

import tempfile
from pathlib import Path

from armbench_mmdet.datasets.ground_truth import GroundTruthSource
from armbench_mmdet.datasets.images import FoundImages, find_images, image_size, read_bytes
from armbench_mmdet.errors import InputError
from armbench_mmdet.export.parity import Parity, compare, first_diverging_stage
from armbench_mmdet.export.write import write_onnx
from armbench_mmdet.files import draft_of
from armbench_mmdet.inference.detector import Detector
from armbench_mmdet.minibench import make_minibench
from armbench_runtime import Detector as ExportedDetector
from armbench_runtime.images import network_size

CHECK_IMAGES = 8


def export(
    detector: Detector,
    out: Path,
    size: tuple[int, int] | None = None,
    dynamic: bool = False,
    check: list[str] | None = None,
    force: bool = False,
) -> Parity:
    """Write an ONNX file once it is known to say what the model says.

    Args:
        detector: The model, on the CPU.
        out: The file.
        size: Height and width of the images; by default those of the first one of ``check``.
        dynamic: Take images of any size.
        check: Images to compare on, as :func:`~armbench_mmdet.datasets.images.find_images` takes them; a COCO file's
            annotations are compared on too. By default a few totes are made.
        force: Write the file whatever the comparison says.

    Returns:
        The comparison.

    Raises:
        InputError: Model and file differ, or there was too little to compare; nothing is written then.
    """
    if not (size or dynamic or check):
        raise InputError('--size HEIGHT WIDTH, --dynamic or --check IMAGES must say which images the file is for')
    if not out.parent.is_dir():
        raise InputError(f'OUT must lie in an existing folder, got {str(out)!r}')
    with tempfile.TemporaryDirectory() as folder, draft_of(out) as draft:
        images = find_images(check or _totes(Path(folder), size))
        if size is None and not dynamic:
            size = image_size(read_bytes(images.paths[0]), images.paths[0])
        write_onnx(detector, draft, size)
        exported = ExportedDetector.from_onnx(draft)
        fixed, scale = exported.metadata['input']['size'], exported.metadata['input']['scale']
        fitting = {
            path: image_id
            for path, image_id in zip(images.paths, images.ids, strict=True)
            if not fixed or list(network_size(scale, *image_size(read_bytes(path), path))) == fixed
        }
        if not fitting:
            raise InputError(f'--check must have images that scale to {fixed[1]}x{fixed[0]} as --size says, got none')
        expected = list(detector.predict(FoundImages(list(fitting), list(fitting.values())), batch_size=1))
        got = list(exported.predict([one.path for one in expected], ids=[one.image_id for one in expected]))
        truth = None
        if images.ann_file:
            truth = GroundTruthSource(str(images.ann_file), cache_dir=folder).load().of_classes(detector.classes)
        parity = compare(expected, got, truth)
        if parity.faults and not force:
            where = ''
            if parity.differences:
                stage = first_diverging_stage(detector, parity.image, size)
                where = f'; first diverging stage: {stage} (on {parity.image})'
            raise InputError(
                f'the exported file must say what the model says, got: {"; ".join(parity.faults)}{where}; '
                'nothing is written, unless with --force'
            )
    return parity


def _totes(folder: Path, size: tuple[int, int] | None) -> str:
    """A COCO file of a few totes made into a folder."""
    height, width = size or (256, 320)
    counts = {('mix-object-tote', 'test'): CHECK_IMAGES}
    make_minibench(folder, counts=counts, width_px=width, height_px=height, workers=1, show_progress=False)
    return str(folder / 'mix-object-tote/test.json')
