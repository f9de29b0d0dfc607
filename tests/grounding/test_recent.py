import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from grounding.recent import MAX_PICTURES, Recent


def picture(value: int, shape: tuple[int, ...] = (4, 6), dtype: str = "uint8") -> np.ndarray:
    return np.full(shape, value, dtype)


class Counter:
    """Makes tensors of 40 bytes and counts them."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> list[torch.Tensor]:
        self.made += 1
        return [torch.full((10,), self.made, dtype=torch.float32)]


@pytest.mark.parametrize(
    ("other", "made"),
    [
        (picture(1), 1),  # the same content in another array
        (picture(1)[:, ::-1], 1),  # the same, not contiguous
        (picture(2), 2),  # other pixels
        (np.r_[picture(1)[:-1], picture(2)[-1:]], 2),  # others in the last row only
        (picture(1, (6, 4)), 2),  # the same bytes in another shape
        (picture(1, (4, 6), "int8"), 2),  # and as another type
    ],
)
def test_content_decides(other: np.ndarray, made: int) -> None:
    make, recent = Counter(), Recent()
    first, second = recent.get(picture(1), make), recent.get(other, make)
    assert make.made == made and (first is second) == (made == 1)


@pytest.mark.parametrize(
    ("room", "kept"),
    [
        (0, 1),  # the latest stays, however large
        (79, 1),
        (80, 2),
        (1000, 5),  # all
    ],
)
def test_bounded_in_bytes(room: int, kept: int) -> None:
    make, recent = Counter(), Recent(max_bytes=room)
    for value in range(5):
        recent.get(picture(value), make)
    assert len(recent) == kept and recent.nbytes == 40 * kept
    recent.get(picture(4), make)
    assert make.made == 5, "the latest was kept"


def test_bounded_in_pictures() -> None:
    make, recent = Counter(), Recent()
    for value in range(MAX_PICTURES + 5):
        recent.get(picture(value), make)
    assert len(recent) == MAX_PICTURES
    recent.get(picture(5), make)  # the oldest that is kept
    assert make.made == MAX_PICTURES + 5


def test_what_was_used_last_stays() -> None:
    make, recent = Counter(), Recent(max_bytes=80)
    for value in (0, 1, 0, 2, 0):
        recent.get(picture(value), make)
    assert make.made == 3


def test_many_threads_make_each_picture_once_and_never_get_anothers() -> None:
    recent: Recent[torch.Tensor] = Recent(lambda t: t.nbytes)
    made: list[int] = []

    def ask(value: int) -> bool:
        def make() -> torch.Tensor:
            made.append(value)
            time.sleep(0.01)  # so that others ask for the same one meanwhile
            return torch.tensor(value)

        return int(recent.get(picture(value), make)) == value

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, [i // 8 for i in range(200)]))
    assert sorted(made) == list(range(25))
