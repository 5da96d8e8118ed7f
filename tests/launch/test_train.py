from pathlib import Path

import pytest
from mmengine.config import Config

from armbench_mmdet.errors import InputError
from armbench_mmdet.launch import set_resume


@pytest.mark.parametrize(('resume', 'files'), [('auto', ['epoch_3.pth']), ('missing.pth', [])])
def test_resume_without_a_whole_checkpoint_says_so(tmp_path: Path, resume: str, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).touch()
        (tmp_path / f'{name}.sha256').write_text('another')
    config = Config(dict(work_dir=str(tmp_path)))
    with pytest.raises(InputError, match='--resume must find'):
        set_resume(config, resume)


def test_resume_in_an_empty_folder_starts_afresh_as_in_mmdet(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = Config(dict(work_dir=str(tmp_path), load_from='coco.pth'))
    set_resume(config, 'auto')
    assert config.load_from == 'coco.pth'
    assert not config.get('resume')
    assert 'no checkpoint yet' in capsys.readouterr().out
