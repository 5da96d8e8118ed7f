"""Every tool, given files and folders that are not what it takes: one message and status 2, never a traceback."""

from collections.abc import Callable
from pathlib import Path

import pytest

CONFIG = 'mask-rcnn_r18-w32_fpn-64_minibench'
READS = [
    'check_data BAD',
    'check_data --ann-file BAD.json --images .',
    'evaluate BAD.json --ground-truth TRUTH',
    'evaluate rows.json --ground-truth BAD.json',
    'evaluate --model BAD.onnx --ground-truth TRUTH',
    'infer BAD.onnx TRUTH --out out',
    'report BAD --out out',
    'convert data labelme BAD out',
    'convert data yolo BAD out',
    'convert data label-images BAD out',
    'convert data coco BAD.json out.json',
    'convert data coco TRUTH out.json --list BAD.txt',
    'convert weights torchvision BAD.pth out.pth',
    'export_weights BAD.pth out.safetensors',
    'train BAD.py',
    'train BAD.py --data-root ROOT',
    'test BAD.py weights.pth',
    'test BAD.py weights.pth --tta 1',
    'test BAD.py --selftest',
    'infer BAD.py weights.pth TRUTH --out out',
    'export BAD.py weights.pth out.onnx',
    'browse_data BAD.py --out out.png',
    'sweep BAD.py',
    'ablate BAD.py',
    f'train {CONFIG} --data-root ROOT --resume BAD.pth',
    f'test {CONFIG} --data-root ROOT BAD.pth',
    f'infer {CONFIG} BAD.pth TRUTH --out out',
]
CONTENTS = {
    'empty': b'',
    'any bytes': bytes(range(256)),
    'not UTF-8': '{"images": "é"}'.encode('latin-1'),
    'a list': b'[]',
    'wrong types': b'{"images": {"id": "x"}, "annotations": 3, "shapes": null}',
    'code that fails': b'1 / 0',
    'code of numbers': b'train_dataloader = test_dataloader = 3',
}
WRITES = [
    'make_minibench BELOW --train 0 --val 0 --test 0',
    'check_data ROOT --json BELOW',
    'convert data coco TRUTH BELOW',
    f'browse_data {CONFIG} --data-root ROOT --num 1 --out BELOW.png',
    f'train {CONFIG} --data-root ROOT --work-dir BELOW',
]


@pytest.fixture
def start(tool: Callable, minibench_root: Path, tmp_path: Path, monkeypatch) -> Callable[[str], tuple[int, str]]:
    """Runs a command line whose words may stand for paths, in a folder of its own; returns status and messages."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a file').touch()
    (tmp_path / 'rows.json').write_text('[]')
    places = {
        'TRUTH': minibench_root / 'mix-object-tote/test.json',
        'ROOT': minibench_root,
        'BAD': tmp_path / 'bad',
        'BELOW': tmp_path / 'a file/out',
    }

    def run(command: str) -> tuple[int, str]:
        name, *words = command.split()
        for word, place in places.items():
            words = [one.replace(word, str(place)) for one in words]
        status, _, messages = tool(f'{name}.py', *words)
        return status, messages

    return run


@pytest.mark.parametrize('command', READS)
def test_what_cannot_be_read_is_one_message(command: str, start: Callable, tmp_path: Path) -> None:
    suffix = next(word for word in command.split() if word.startswith('BAD')).removeprefix('BAD')
    path = tmp_path / f'bad{suffix}'
    found = {'nothing': start(command)}
    for what, content in CONTENTS.items():
        path.write_bytes(content)
        found[what] = start(command)
    path.unlink()
    path.mkdir()
    found['a folder'] = start(command)
    assert {what: status for what, (status, _) in found.items() if status != 2} == {}
    assert 'Traceback' not in ''.join(messages for _, messages in found.values())


@pytest.mark.parametrize('command', WRITES)
def test_what_cannot_be_written_is_one_message(command: str, start: Callable) -> None:
    status, messages = start(command)
    assert (status, messages.count('error: ')) == (2, 1)
    assert 'a file' in messages
