import pytest

from grounding.filenames import MAX_NAME, safe_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a dog", "a-dog"),
        ("../../x", "x"),  # a way out of the folder
        ("C:\\Windows\\x", "C-Windows-x"),
        ("CON", "_CON"),  # devices of Windows
        ("com¹", "_com1"),
        ("console", "console"),
        ("nul.", "_nul"),
        ("a dog.", "a-dog"),  # Windows drops a full stop at the end
        ("🐕", "unnamed"),  # no letter at all
        ("🐕 dog", "dog"),
        ("", "unnamed"),
        ("a\0b\nc", "a-b-c"),
        ("x" * 300, "x" * MAX_NAME),
        ("字" * 300, "字" * MAX_NAME),
        ("\u202ekcab", "kcab"),  # turns round what follows
        ("כלב גדול", "כלב-גדול"),  # right-to-left
        ("e\u0301té", "été"),  # one spelling of two
        ("／etc／x", "etc-x"),  # becomes a plain slash when normalised
        ("कुत्ता", "कुत्ता"),  # marks belong to the word
        ('<a>:"|?*', "a"),
        ("-rf", "rf"),  # no option of a command
        ("\udcff", "unnamed"),  # from a file name that is no UTF-8
    ],
)
def test_safe_name(text: str, name: str) -> None:
    assert safe_name(text) == name
    assert len(name.encode()) < 200
