"""The windowed Swin Transformer computes what mmdet's does."""

from typing import Any

import pytest
import torch
from mmdet.models.backbones import SwinTransformer
from torch import Tensor, nn

from armbench_mmdet.models.swin import WindowedSwinTransformer

SIZES = [(2, 61, 75), (1, 96, 128), (3, 131, 97), (1, 17, 40)]
"""Images, height and width; only the second is a multiple of patches and windows."""
SMALL = {'embed_dims': 16, 'depths': [2, 2, 4, 2], 'num_heads': [1, 2, 4, 8], 'drop_path_rate': 0.0}


def pair(**options: Any) -> tuple[nn.Module, nn.Module]:
    """The stock backbone and ours with the same weights."""
    torch.manual_seed(0)
    stock = SwinTransformer(**SMALL | options)
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    ours = WindowedSwinTransformer(**SMALL | options)
    assert list(ours.state_dict()) == list(stock.state_dict())
    ours.load_state_dict(stock.state_dict())
    return stock, ours


def gradients(model: nn.Module, image: Tensor) -> list[Tensor]:
    """Of a loss that every output counts in, at the image and all weights."""
    image = image.clone().requires_grad_()
    loss = sum((out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum() for out in model(image))
    model.zero_grad()
    loss.backward()
    return [image.grad, *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('options', [{'window_size': 4}, {'window_size': 7, 'qkv_bias': False}, {'window_size': 12}])
def test_outputs_and_gradients_are_the_stocks(size: tuple[int, int, int], options: dict[str, Any]) -> None:
    stock, ours = pair(**options)
    image = torch.randn(size[0], 3, *size[1:])
    with torch.no_grad():
        for expected, found in zip(stock(image), ours(image), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for expected, found in zip(gradients(stock, image), gradients(ours, image), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max().clamp(min=1)))


def test_checkpointing_and_frozen_stages_change_gradients_by_rounding_alone() -> None:
    image = torch.randn(1, 3, 61, 75)
    plain, checkpointed = (pair(with_cp=with_cp, window_size=4)[1] for with_cp in (False, True))
    for expected, found in zip(gradients(plain, image), gradients(checkpointed, image), strict=True):
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    stock, ours = pair(frozen_stages=2, window_size=4)
    for model in (stock, ours):
        model.train()
    names = [[name for name, value in model.named_parameters() if value.requires_grad] for model in (stock, ours)]
    assert names[0] == names[1]
    assert not any(name.startswith('stages.1') for name in names[1])


def test_what_was_cached_in_inference_serves_a_training() -> None:
    ours = pair(window_size=4)[1]
    image = torch.randn(1, 3, 68, 52)
    with torch.inference_mode():
        ours(image)
    assert all(gradient.isfinite().all() for gradient in gradients(ours, image))


def test_bfloat16_autocast_is_as_near_as_the_stocks() -> None:
    stock, ours = pair(window_size=4)
    image = torch.randn(1, 3, 61, 75)
    with torch.no_grad():
        exact = stock(image)
        with torch.autocast('cpu', torch.bfloat16):
            errors = [
                [(o.float() - e).abs().mean() for o, e in zip(m(image), exact, strict=True)] for m in (stock, ours)
            ]
    assert all(mine < 1.5 * theirs for theirs, mine in zip(*errors, strict=True))


@pytest.mark.parametrize('backend', ['eager', pytest.param('inductor', marks=pytest.mark.slow)])
def test_it_compiles_whole(backend: str) -> None:
    one_stage = {'depths': [2], 'num_heads': [2], 'out_indices': (0,)}
    plain = pair(window_size=4, **one_stage)[1]
    image = torch.randn(2, 3, 61, 75)
    expected = [plain(image)[0].detach(), *gradients(plain, image)]
    plain.compile(backend=backend, fullgraph=True)
    for before, after in zip(expected, [plain(image)[0], *gradients(plain, image)], strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-5 * float(before.abs().max().clamp(min=1)))


def test_biases_lie_as_the_fused_attention_of_gpus_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    strides = []
    attend = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        'armbench_mmdet.models.swin.F.scaled_dot_product_attention',
        lambda q, k, v, bias, *args, **kwargs: (
            strides.append(bias.stride(-1)) or attend(q, k, v, bias, *args, **kwargs)
        ),
    )
    WindowedSwinTransformer(**SMALL)(torch.randn(1, 3, 61, 75))
    assert strides
    assert set(strides) == {1}
