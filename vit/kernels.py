"""Which of torch's fused attention kernels a training step takes on a GPU."""

from contextlib import AbstractContextManager

from torch.nn.attention import SDPBackend, sdpa_kernel


def attention_kernels(tokens: int) -> AbstractContextManager[None]:
    """Return a context in which attention over a number of tokens is fast and right.

    Never cuDNN's, torch's first choice on an H100: its backward pass of 64 tokens is known to give
    NaN for very negative scores under a mask (https://github.com/pytorch/pytorch/issues/196678),
    and three of twelve runs with it, without a mask, ended in NaN. Forward and backward pass there
    for 128 pictures and 8 heads of 32 in bfloat16, in microseconds: 64 tokens 54 memory-efficient,
    102 flash; 65 tokens 135 and 102.
    """
    kernels = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    if tokens % 8:
        kernels.append(SDPBackend.FLASH_ATTENTION)
    return sdpa_kernel(kernels)
