"""What several folders of tests share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from tqdm.std import tqdm

if TYPE_CHECKING:
    from tests.site import Site

# tqdm's thread, which watches all bars, trips over one that another thread lets go just then.
tqdm.monitor_interval = 0


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Site]":
    from tests.site import open_site

    with open_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened
