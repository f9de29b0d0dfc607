import pytest
import torch

from vit.kernels import attention_kernels


@pytest.mark.parametrize(
    ("tokens", "flash"),
    [
        (64, False),  # 8 x 8 patches
        (65, True),  # and a class token
        (32, False),  # half of the patches left out
        (1, True),
    ],
)
def test_never_cudnn(tokens: int, flash: bool) -> None:
    allowed = torch.backends.cuda
    before = allowed.flash_sdp_enabled(), allowed.cudnn_sdp_enabled()
    with attention_kernels(tokens):
        assert not allowed.cudnn_sdp_enabled()
        assert allowed.flash_sdp_enabled() is flash
        assert allowed.mem_efficient_sdp_enabled()
        assert allowed.math_sdp_enabled()  # what other kernels refuse
    assert (allowed.flash_sdp_enabled(), allowed.cudnn_sdp_enabled()) == before
