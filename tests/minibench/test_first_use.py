import multiprocessing
import time
from pathlib import Path

from armbench_mmdet.minibench import SUBSETS, make_minibench, writer
from armbench_mmdet.minibench.writer import is_complete


def _ensure_slowly(root: Path, log: Path) -> None:
    def slow(folder: Path, counts: dict) -> None:
        with log.open('a') as file:
            file.write('made\n')
        time.sleep(0.5)
        make_minibench(
            folder, counts={(SUBSETS[0], 'test'): 1}, width_px=64, height_px=64, workers=1, show_progress=False
        )

    writer.make_minibench = slow
    writer.ensure_minibench(root)
    assert is_complete(root)


def test_processes_that_start_together_make_it_once(tmp_path: Path) -> None:
    root, log = tmp_path / 'minibench', tmp_path / 'log'
    context = multiprocessing.get_context('spawn')  # OpenCV's threads do not survive a fork
    processes = [context.Process(target=_ensure_slowly, args=(root, log)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert log.read_text() == 'made\n'
