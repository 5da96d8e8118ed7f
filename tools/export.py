"""Export a model as ONNX, if it says what the model says: ``python tools/export.py CONFIG CHECKPOINT OUT.onnx …``.

The file is compared with the model on images, see docs/export.md; ``armbench_runtime`` runs it without torch.
"""

import argparse
from pathlib import Path

import armbench_cli


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Export a model as ONNX', allow_abbrev=False)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file, or a run folder (its latest checkpoint)')
    parser.add_argument('out', type=Path, metavar='OUT.onnx', help='file to write')
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), help='images of this size')
    sizes.add_argument('--dynamic', action='store_true', help='images of any size (the default)')
    parser.add_argument(
        '--check',
        nargs='+',
        metavar='IMAGES',
        help='files, folders, patterns, or a COCO file (default: some totes of minibench)',
    )
    parser.add_argument('--force', action='store_true', help='write the file even if it differs from the model')
    parser.add_argument('--trust-checkpoint', action='store_true', help='load a file that can run code')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override config keys')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Run the tool."""
    import logging
    import warnings

    from mmengine.logging import MMLogger

    from armbench_mmdet import configs
    from armbench_mmdet.engine.runner import quiet_console
    from armbench_mmdet.export.onnx import export
    from armbench_mmdet.inference import Detector

    warnings.filterwarnings('ignore', module=r'(torch|onnx)')
    for name in ('torch.onnx', 'onnxscript'):  # they tell of operators that are not used here
        logging.getLogger(name).setLevel(logging.ERROR)
    quiet_console(MMLogger.get_current_instance())
    config = configs.load_config(args.config, configs.parse_options(args.cfg_options))
    config.pop('levers', None)  # they change how PyTorch computes, not what
    detector = Detector(config, args.checkpoint, 'cpu', args.trust_checkpoint)
    parity = export(detector, args.out, tuple(args.size) if args.size else None, args.check, args.force)
    print(parity.line)
    for fault in parity.faults:
        print(f'fault: {fault}')
    print(f'{args.out}: {args.out.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    armbench_cli.run(parse_args, main)
