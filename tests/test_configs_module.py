import re
from pathlib import Path

import pytest

from armbench_mmdet import configs
from armbench_mmdet.errors import InputError

REPO = Path(__file__).resolve().parents[1]
LEAF = REPO / 'configs/mask_rcnn/mask-rcnn_r18-w32_fpn-64_minibench.py'


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'config must be an existing file'),
        ('model = dict(', 'config must load'),
        ("_base_ = './nowhere.py'", 'nowhere.py'),
        ("_base_ = 'mmdet::mask_rcnn/nowhere.py'", 'nowhere.py'),
        ("custom_imports = dict(imports=['no_such_module'], allow_failed_imports=False)", 'no_such_module'),
    ],
)
def test_bad_config_file_is_one_clear_error(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / 'experiment.py'
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        configs.load_config(file)
    assert 'experiment.py' in str(caught.value)


def test_misspelt_config_name_suggests_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    with pytest.raises(InputError, match=f'did you mean .*{LEAF.name}'):
        configs.load_config('configs/mask_rcnn/mask-rcnn_r18-w32_fpn_minibench.py')


@pytest.mark.parametrize('name', [LEAF.stem, LEAF.name])
def test_a_bare_name_is_found_here_first_and_then_among_the_packages_configs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert configs.find_config(name) == LEAF
    assert configs.load_config(name).filename == str(LEAF)
    own = tmp_path / 'configs' / 'mine' / LEAF.name
    own.parent.mkdir(parents=True)
    own.write_text('a = 1\n')
    assert configs.load_config(name).a == 1
    with pytest.raises(InputError, match='which no config is named either'):
        configs.load_config('default_runtime')


def test_differences_are_leaves_and_tell_types_apart() -> None:
    found = configs.differences({'a': {'b': 1, 'c': 2}, 'd': [1]}, {'a': {'b': 1.0, 'c': 2}, 'd': (1,), 'e': {}})
    assert {one.key: (one.base, one.run) for one in found} == {
        'a.b': ('1', '1.0'),
        'd': ('[1]', '(1,)'),
        'e': ('–', 'dict()'),
    }


def test_option_pairs_follow_mmengine() -> None:
    pairs = ['a.b=1', 'c=[1,2]', 'd="[(1,2),(3,4)]"', 'e=x=y', 'f=None', 'g=true']
    assert configs.parse_options(pairs) == {
        'a.b': 1,
        'c': [1, 2],
        'd': [(1, 2), (3, 4)],
        'e': 'x=y',
        'f': None,
        'g': True,
    }
    assert configs.parse_options(None) == {}
    with pytest.raises(InputError, match="must be pairs key=value, got 'lr'"):
        configs.parse_options(['lr', 'a=1'])


def test_options_override_and_new_keys_are_reported(capsys: pytest.CaptureFixture) -> None:
    config = configs.load_config(LEAF, {'optim_wrapper.optimizer.lr': 0.5, 'train_dataloader.timeout': 3, 'own': 1})
    assert config.optim_wrapper.optimizer.lr == 0.5
    printed = ''.join(capsys.readouterr())
    assert "creates the key 'train_dataloader.timeout'" in printed
    assert "creates the key 'own'" in printed
    assert 'optimizer.lr' not in printed


@pytest.mark.parametrize(
    ('key', 'nearest'),
    [
        ('train_dataloader.batchsize', 'batch_size'),
        ('optim_wraper.optimizer.lr', 'optim_wrapper'),
        ('train_dataloader.dataset.pipeline.3.typ', 'type'),
    ],
)
def test_a_misspelt_key_is_refused_with_the_nearest(key: str, nearest: str) -> None:
    with pytest.raises(InputError, match=rf'got {key!r}: .* did you mean {nearest}\?'):
        configs.load_config(LEAF, {key: 1})


def test_option_that_cannot_be_merged_is_an_input_error() -> None:
    with pytest.raises(InputError, match='--cfg-options must fit the config'):
        configs.load_config(LEAF, {'train_pipeline.9.type': 'Resize'})


def test_data_root_reaches_every_loader_and_wrapped_data_sets() -> None:
    config = configs.load_config(LEAF)
    config.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=config.train_dataloader.dataset)
    configs.set_data_root(config, 'elsewhere')
    assert [dataset.data_root for dataset in configs.datasets(config)] == ['elsewhere'] * 3


def test_data_root_is_refused_where_several_folders_are_joined() -> None:
    config = configs.load_config(LEAF)
    parts = [{**config.train_dataloader.dataset, 'data_root': root} for root in ('one', 'two')]
    config.train_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    with pytest.raises(InputError, match=r'--data-root must be left out where train_dataloader joins .* one, two'):
        configs.set_data_root(config, 'elsewhere')


def test_training_subsets_are_named_through_wrappers() -> None:
    config = configs.load_config(LEAF)
    assert configs.training_subsets(config) == 'mix-object-tote'
    parts = [config.train_dataloader.dataset, {**config.train_dataloader.dataset, 'subset': 'other'}]
    config.train_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    assert configs.training_subsets(config) == 'mix-object-tote + other'


@pytest.mark.parametrize(
    ('argument', 'in_config', 'expected'),
    [('given', 'written', 'given'), (None, 'written', 'written'), (None, None, f'work_dirs/{LEAF.stem}')],
)
def test_work_dir_comes_from_the_argument_then_the_config_then_its_name(
    argument: str | None, in_config: str | None, expected: str
) -> None:
    config = configs.load_config(LEAF)
    config.work_dir = in_config
    assert configs.set_work_dir(config, argument) == Path(expected)
    assert config.work_dir == expected
