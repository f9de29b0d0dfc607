import pytest
import torch

from precision import fast


@pytest.mark.parametrize("units", [False, True])
def test_products_are_bfloat16_where_there_are_units(
    monkeypatch: pytest.MonkeyPatch, units: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: units)
    ones = torch.ones(2, 2)
    with fast("cpu"):
        assert (ones @ ones).dtype == (torch.bfloat16 if units else torch.float32)
    assert (ones @ ones).dtype == torch.float32
