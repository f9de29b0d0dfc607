import pytest

from grounding.captions import pack


@pytest.mark.parametrize(
    ("lengths", "captions"),
    [
        ([], []),  # none
        ([3], [[0]]),  # one
        ([2, 2, 2], [[0, 1], [2]]),  # the third does not fit
        ([5, 5], [[0], [1]]),  # each fills a caption
        ([1, 1, 1, 1], [[0, 1, 2], [3]]),  # separators take room, too
    ],
)
def test_pack(lengths: list[int], captions: list[list[int]]) -> None:
    assert pack(lengths, room=6) == captions
