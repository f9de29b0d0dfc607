import pytest
import torch

from common import precision
from common.precision import fast


@pytest.mark.parametrize("units", [False, True])
def test_products_are_bfloat16_where_there_are_units(
    monkeypatch: pytest.MonkeyPatch, units: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: units)
    ones = torch.ones(2, 2)
    with fast("cpu"):
        assert (ones @ ones).dtype == (torch.bfloat16 if units else torch.float32)
    assert (ones @ ones).dtype == torch.float32


def test_emulated_units_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    emulated = lambda including_emulation=True: including_emulation  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", emulated)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert not precision.has_units("cuda") and not precision.has_units("mps")
