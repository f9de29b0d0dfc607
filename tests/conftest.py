"""What several folders of tests share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.site import Site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Site]":
    from tests.site import open_site

    with open_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened
