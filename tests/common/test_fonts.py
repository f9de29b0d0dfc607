import pytest
from PIL import Image, ImageDraw, features

from common import fonts
from common.fonts import drawable, font


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("", ""),
        ("a dog 0.53", "a dog 0.53"),
        ("crème brûlée, Größe", "crème brûlée, Größe"),
        ("cre\u0300me", "crème"),  # the accent is a letter of its own
        ("собака και", "собака και"),
        ("1 犬 0.90", "1 0.90"),  # not in the font
        ("🐕", ""),
        ("कुत्ता สุนัข", ""),  # with accents, which have no place of their own
        ("hot\tdog\n2", "hot dog 2"),
    ],
)
def test_letters_that_would_be_boxes_are_left_out(text: str, drawn: str) -> None:
    assert drawable(text) == drawn


def test_what_would_be_drawn_backwards_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.features.check", lambda name: name != "raqm")
    fonts._is_there.cache_clear()
    assert drawable("1 כלב سمك 0.53") == "1 0.53"
    monkeypatch.undo()
    fonts._is_there.cache_clear()
    assert (drawable("כלב") == "כלב") == features.check("raqm")


def test_different_letters_look_different() -> None:
    def draw(text: str) -> bytes:
        picture = Image.new("L", (40, 20))
        ImageDraw.Draw(picture).text((0, 0), text, 255, font(12))
        return picture.tobytes()

    assert len({draw(text) for text in ("e", "é", "ё", "ε", "")}) == 5
