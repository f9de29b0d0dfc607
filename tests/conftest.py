"""What several folders of tests share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch
from tqdm.std import tqdm

if TYPE_CHECKING:
    from tests.site import Site

# tqdm's thread, which watches all bars, trips over one that another thread lets go just then.
tqdm.monitor_interval = 0


@pytest.fixture(autouse=True)
def drawn_alike() -> None:
    """Let a test that draws without a seed of its own draw the same every time."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def assets_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep converted weights out of the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        place = str(tmp_path_factory.mktemp("assets"))
        patch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", place)
        yield


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Site]":
    from tests.site import open_site

    with open_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened
