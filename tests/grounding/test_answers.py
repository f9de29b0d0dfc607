"""What of an answer is found, kept and replaced by the whole command is in `test_main.py`."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from grounding.answers import find_pictures, source_of


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("files", "arguments", "names"),
    [
        (["a.png"], ["a.png"], ["a"]),  # one file
        (["a.png", "b.jpg", "c/d.webp"], ["."], ["a", "b", "c-d"]),  # a folder, and what is below
        (["a.png", "b.jpg", "c.png"], ["*.png"], ["a", "c"]),  # a pattern
        (["a/b/c.png", "d.png"], ["**/*.png"], ["c", "d"]),  # a pattern for all folders
        (["a/b.png", "a-b.png", "A-b.tif"], ["."], ["A-b", "a-b-2", "a-b-3"]),  # alike
        (["a/x.png", "b/x.png"], ["a", "b"], ["x", "x-2"]),  # the same name in two folders
        (["a.png"], ["a.png", ".", "*.png"], ["a"]),  # the same picture three times
        (["[1].png", "1.png"], ["[1].png"], ["1"]),  # a file that looks like a pattern
        (["a.JFIF", "b.heic", "c.md"], ["."], ["a", "b"]),  # by suffix; that b is bad is said later
        ([".a.png", ".b/a.png", "c.png"], ["."], ["c"]),  # hidden ones
        (["CON.png", "🐕.png"], ["."], ["_CON", "unnamed"]),  # no names for folders
        ([f"{'d' * 60}/{'e' * 60}.png"], ["."], ["e" * 48]),  # a long one
    ],
)
def test_find_pictures(
    files: list[str],
    arguments: list[str],
    names: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    _touch(tmp_path, *files, "notes.txt")
    assert sorted(find_pictures(arguments, tmp_path / "out")) == names


def test_only_what_is_hidden_below_the_folder_is_passed_over(tmp_path: Path) -> None:
    _touch(tmp_path / ".cache/in", "a.png")
    assert list(find_pictures([str(tmp_path / ".cache/in")], tmp_path / "out")) == ["a"]


def test_a_copy_of_a_picture_that_has_an_answer_is_another_picture(tmp_path: Path) -> None:
    """With its size and time, by which one that was moved is known again."""
    _touch(tmp_path / "in", "a.png", "b/x.txt")
    shutil.copy2(tmp_path / "in/a.png", tmp_path / "in/b/a.png")
    _touch(tmp_path / "out/a", "manifest.json")
    answer = {"source": source_of(tmp_path / "in/a.png"), "prompt": "", "rows": [], "models": {}}
    (tmp_path / "out/a/manifest.json").write_text(json.dumps(answer))
    found = find_pictures([str(tmp_path / "in")], tmp_path / "out")
    assert found == {"a": tmp_path / "in/a.png", "b-a": tmp_path / "in/b/a.png"}


def test_a_link_to_a_picture_is_the_same_picture(tmp_path: Path) -> None:
    _touch(tmp_path / "in", "a.png")
    (tmp_path / "in/b.png").symlink_to(tmp_path / "in/a.png")
    assert list(find_pictures([str(tmp_path / "in")], tmp_path / "out")) == ["a"]


@pytest.mark.parametrize("argument", ["nowhere.png", "*.gif", "."])  # file, pattern, empty folder
def test_nothing_found(argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="There is no picture at"):
        find_pictures([argument], tmp_path / "out")


def test_a_folder_that_cannot_be_entered_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may enter any, so the system's answer is made up."""
    _touch(tmp_path, "a.png", "closed/b.png")
    stat = os.stat

    def refuse(path: Any, **how: Any) -> os.stat_result:
        if str(path).endswith("b.png"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return stat(path, **how)

    monkeypatch.setattr(os, "stat", refuse)
    assert list(find_pictures([str(tmp_path)], tmp_path / "out")) == ["a"]
