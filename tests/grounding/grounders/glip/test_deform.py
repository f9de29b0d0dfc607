import pytest
import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from grounding.grounders.glip.deform import deform_conv


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("batch", "height", "width", "stride", "reach"),
    [
        (1, 5, 7, 1, 0.0),  # no shift: an ordinary convolution
        (2, 5, 7, 1, 1.5),  # two samples, each with its own shifts
        (1, 5, 7, 1, 9.0),  # most taps fall outside
        (1, 6, 4, 2, 1.5),  # stride 2, even sides
        (1, 5, 7, 2, 1.5),  # stride 2, odd sides
        (1, 1, 1, 1, 0.7),  # a single pixel
    ],
)
def test_equals_torchvision(batch: int, height: int, width: int, stride: int, reach: float) -> None:
    x, weight, bias = (
        noise(batch, 4, height, width, seed=1),
        noise(6, 4, 3, 3, seed=2),
        noise(6, seed=3),
    )
    h, w = -(-height // stride), -(-width // stride)
    offset, mask = reach * noise(batch, 18, h, w, seed=4), noise(batch, 9, h, w, seed=5).sigmoid()
    ours = deform_conv(x, offset, mask, weight, bias, stride)
    theirs = deform_conv2d(x, offset, weight, bias, stride, padding=1, mask=mask)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_taps_exactly_on_the_border() -> None:
    """A tap at -1 or at the size sees nothing; one on the last row sees that row."""
    x, weight = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3)
    offset, mask = torch.zeros(1, 18, 3, 3), torch.ones(1, 9, 3, 3)
    out = deform_conv(x, offset, mask, weight, torch.zeros(1), 1)
    assert out[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


def test_gradients_equal_torchvision() -> None:
    """The demo weights are trained through it."""
    start = [noise(2, 4, 5, 5, seed=1), 0.8 * noise(2, 18, 5, 5, seed=2), noise(2, 9, 5, 5, seed=3)]
    weight, bias, ones = noise(3, 4, 3, 3, seed=4), noise(3, seed=5), noise(2, 3, 5, 5, seed=6)

    def gradients(ours: bool) -> tuple[Tensor, ...]:
        x, offset, mask = (tensor.clone().requires_grad_() for tensor in start)
        if ours:
            out = deform_conv(x, offset, mask, weight, bias, 1)
        else:
            out = deform_conv2d(x, offset, weight, bias, 1, padding=1, mask=mask)
        return torch.autograd.grad((out * ones).sum(), (x, offset, mask))

    for ours, theirs in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
