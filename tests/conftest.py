"""What several folders of tests share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.site import Site


@pytest.fixture(scope="session")
def site() -> "Iterator[Site]":
    from tests.site import open_site

    with open_site() as opened:
        yield opened
