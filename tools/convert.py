"""Convert annotations of other formats to COCO files of ARMBench's shape, cut a COCO file, or convert weights."""

import argparse
from pathlib import Path

import armbench_cli

EPILOG = """
python tools/convert.py data labelme mix-object-tote/annotations OUT --split test
python tools/convert.py data label-images masks OUT --images photos --tote-value 1
python tools/convert.py data yolo dataset/train OUT --split train
python tools/convert.py data coco train.json train_1pct.json --fraction 0.01 --seed 0
python tools/convert.py weights amazon latest.pt amazon.pth
python tools/convert.py weights hf-mask2former model.safetensors work_dirs/hf.pth --num-classes 80
python tools/convert.py weights torchvision work_dirs/RUN/epoch_12.pth for_torchvision.pth --reverse
"""


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest='what', required=True)
    data = kinds.add_parser('data', help='annotations')
    data.add_argument('format', choices=['labelme', 'label-images', 'yolo', 'coco'])
    data.add_argument('source', type=Path, metavar='IN', help='folder of annotations, or the COCO file to cut')
    data.add_argument('out', type=Path, metavar='OUT', help='folder for SPLIT.json and images/, or the COCO file')
    data.add_argument('--split', default='test', help='name of the file in OUT (default: test)')
    data.add_argument('--images', type=Path, metavar='DIR', help='images, if not where the format has them')
    data.add_argument('--tote-value', type=int, metavar='V', help='label images: the value that is the tote')
    data.add_argument('--fraction', type=float, default=1.0, help='coco: share of the images to keep')
    data.add_argument('--seed', type=int, default=0, help='coco: of the share')
    data.add_argument('--list', type=Path, metavar='FILE', help='coco: text file of the images to keep, one a line')
    weights = kinds.add_parser('weights', help="a model's weights")
    weights.add_argument('family', choices=['torchvision', 'amazon', 'hf-mask2former'])
    weights.add_argument('source', type=Path, metavar='IN', help='file of weights; nothing in it can run code')
    weights.add_argument('out', type=Path, metavar='OUT', help='checkpoint to write (.pth)')
    weights.add_argument('--num-classes', type=int, metavar='N', help='if not tote and object: weights to fine-tune')
    weights.add_argument('--reverse', action='store_true', help='from ours to theirs')
    args = parser.parse_args()
    if args.what == 'data' and args.list and not args.list.is_file():
        parser.error(f'--list must be a file, got {str(args.list)!r}')
    return args


def main(args: argparse.Namespace) -> int:
    """Convert or cut, say what came out, and audit data that was converted; its status is the audit's."""
    if args.what == 'weights':
        from armbench_mmdet.convert.weights import convert_weights

        names = convert_weights(args.family, args.source, args.out, args.num_classes, args.reverse)
        print(f'{args.out}: {len(names)} tensors of {args.source}')
        return 0
    from armbench_mmdet.audit import audit_own_files, format_audit
    from armbench_mmdet.convert.data import convert, cut
    from armbench_mmdet.datasets.release import IMAGE_FOLDER

    if args.format == 'coco':
        names = None if args.list is None else list(filter(None, args.list.read_text(errors='replace').splitlines()))
        report = cut(args.source, args.out, names=names, fraction=args.fraction, seed=args.seed)
        print(report.text())
        return 0
    report = convert(args.format, args.source, args.out, args.split, args.images, args.tote_value)
    print(report.text())
    audit = audit_own_files([report.ann_file], args.out / IMAGE_FOLDER)
    print(format_audit(audit))
    return audit.exit_status(strict=False)


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
