import pytest

from grounding.prompt import MAX_PHRASES, parse_prompt


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        ("a dog", ["a dog"]),  # one
        ("a dog, the blue car", ["a dog", "the blue car"]),  # commas
        ("a dog\nthe blue car\n", ["a dog", "the blue car"]),  # one per line
        ("a dog . the blue car .", ["a dog", "the blue car"]),  # GroundingDINO's own way
        ("a dog; a cat", ["a dog", "a cat"]),  # semicolons
        ("A Dog, a dog,  a   dog ", ["a dog"]),  # the same phrase once
        ("2.5 l bottle", ["2.5 l bottle"]),  # a full stop inside a number stays
        (" , .\n; a dog", ["a dog"]),  # separators alone are no phrase
        ("🐕, a dog", ["a dog"]),  # no letter, no phrase
        ("כלב, a\0dog", ["כלב", "a dog"]),  # right to left, and a NUL
        ("<b>dog</b>", ["<b>dog</b>"]),  # markup is text like any other
    ],
)
def test_phrases(prompt: str, phrases: list[str]) -> None:
    assert parse_prompt(prompt) == phrases


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "Type what to look for"),  # nothing
        (" ., \n ", "Type what to look for"),  # separators only
        ("x" * 10_000, "has 10000 characters"),  # one endless phrase
        (",".join(map(str, range(MAX_PHRASES + 1))), "has 21 phrases"),  # one too many
    ],
)
def test_refused(prompt: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_prompt(prompt)
