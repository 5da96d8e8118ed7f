"""The command ``armbench``: every file of ``tools/`` as a subcommand.

It lies outside the package and imports only the standard library: ``--help`` answers at once, and the environment is
set before torch is loaded.
"""

import ast
import importlib.util
import os
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

USAGE = 'usage: armbench [--help] TOOL …'


def tools_folder() -> Path:
    """The folder of the tools: ``.mim/tools`` of an installed package, else beside it, as in a checkout."""
    spec = importlib.util.find_spec('armbench_mmdet')  # does not import it
    package = Path(spec.origin).parent if spec and spec.origin else Path(__file__).parent / 'armbench_mmdet'
    installed = package / '.mim/tools'
    return installed if installed.is_dir() else package.parent / 'tools'


def run(parse_args: Callable[[], Namespace], main: Callable[[Namespace], int | None]) -> None:
    """Run a tool and leave with its exit status; its command line is read before anything heavy is imported."""
    arguments = parse_args()
    set_environment()
    raise SystemExit(run_tool(lambda: main(arguments)))


def add_levers(parser: ArgumentParser) -> None:
    """Add the options that make a model faster; see ``docs/speed.md``."""
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--channels-last', action='store_true', help='lay feature maps out pixel by pixel')
    parser.add_argument('--compile', action='store_true', help='compile the backbone and neck')


def set_environment() -> None:
    """Set what must stand before torch and mmdet are loaded, unless the user has set it.

    Threads that wait spin for some microseconds (GNU's runtime) and then sleep: on a busy machine, spinning ones slow
    each other down many times; ones that sleep at once make a small model's step 1.4 times as long. And mmdet need
    not miss a package that only a metric of its own wants.
    """
    if 'OMP_WAIT_POLICY' not in os.environ:
        os.environ['OMP_WAIT_POLICY'] = 'PASSIVE'
        os.environ.setdefault('GOMP_SPINCOUNT', '1000')
    warnings.filterwarnings('ignore', message='faster_coco_eval is not installed')


def run_tool(main: Callable[[], int | None]) -> int:
    """Run a command line's ``main`` and return its exit status.

    Args:
        main: The tool's body; it returns an exit status, or nothing for success.

    Returns:
        What ``main`` returned, 0 for nothing, 2 after an ``InputError``, which is printed to standard error as one
        message without a traceback, 130 after Ctrl-C, or 141 when whoever reads the output, such as ``head``, has seen
        enough. Any other exception passes through (the interpreter prints it and exits with 1): it is a defect here,
        and its traceback is wanted.
    """
    try:
        status = main() or 0
        sys.stdout.flush()
        return status
    except ValueError as error:
        errors = sys.modules.get('armbench_mmdet.errors')
        if errors is None or not isinstance(error, errors.InputError):
            raise
        rank = os.environ.get('RANK', '0')
        if rank == '0' or _has_joined():  # before they join, all processes fail alike
            print(f'error (process {rank}): {error}' if rank != '0' else f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:
        if sys.stdout.isatty():  # then it is another pipe
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what the interpreter still has to write
        return 141


def _has_joined() -> bool:
    """Whether this process belongs to a group of several by now."""
    distributed = sys.modules.get('torch.distributed')
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def main() -> None:
    """Run ``armbench TOOL …`` as ``python tools/TOOL.py …`` runs."""
    folder = tools_folder()
    tools = {path.stem.replace('_', '-'): path for path in sorted(folder.glob('[a-z]*.py'))}
    name, *arguments = sys.argv[1:] or ['--help']
    if name in ('-h', '--help'):
        width = max(map(len, tools), default=0)
        print(USAGE + '\n\n' + '\n'.join(f'  {tool:{width}}  {_title(path)}' for tool, path in tools.items()))
        return
    name = name.replace('_', '-')
    if name not in tools:
        print(f'{USAGE}\narmbench: error: TOOL must be one of {", ".join(tools)}, got {name!r}', file=sys.stderr)
        raise SystemExit(2)
    sys.argv = [f'armbench {name}', *arguments]
    sys.path.insert(0, str(folder))  # as Python does for a script
    tool = _load(tools[name])
    run(tool.parse_args, tool.main)


def _title(path: Path) -> str:
    """The first words of a tool's docstring, read without running it."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''
    return text.partition('\n')[0].partition(': ``')[0].rstrip('.')


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f'armbench_{path.stem}', path)
    if spec is None or spec.loader is None:
        raise ImportError(f'a tool must be a Python file, got {path}')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == '__main__':
    main()
