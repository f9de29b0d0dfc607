from pathlib import Path

import pytest

from common.folders import make_writable


@pytest.mark.parametrize("name", [".", "new", "new/and/below"])
def test_a_folder_is_made_and_left_empty(name: str, tmp_path: Path) -> None:
    make_writable(tmp_path / name)
    assert not list((tmp_path / name).glob("[!n]*"))


@pytest.mark.parametrize("name", ["a-file", "a-file/below", "/proc"])
def test_where_nothing_can_be_written(name: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(ValueError, match=rf"^the folder .*{name} of --out cannot be written \("):
        make_writable(tmp_path / name)
