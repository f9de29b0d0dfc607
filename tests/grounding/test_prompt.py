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
        ("!, a dog, …", ["a dog"]),  # no letter, no phrase
        ("כלב, a\0dog", ["כלב", "a dog"]),  # right to left, and a NUL
        ("<b>dog</b>", ["<b>dog</b>"]),  # markup is text like any other
        ("a t-shirt, a dog - cat", ["a t-shirt", "a dog - cat"]),  # a hyphen, a dash
        ("a clock at 10:30, a 16:9 screen", ["a clock at 10:30", "a 16:9 screen"]),  # time, ratio
        ("boeing 747:8, a dog: 3 puppies", ["boeing 747:8", "a dog: 3 puppies"]),  # names
        ("a dog，a cat、a cow；a pig。a hen", ["a dog", "a cat", "a cow", "a pig", "a hen"]),  # CJK
        ("a dog، a cat؛ a cow､a pig", ["a dog", "a cat", "a cow", "a pig"]),  # Arabic, half-width
        ("\ufeffa dog, a dog\u200b", ["a dog"]),  # what nobody sees makes no other phrase
        ("cafe\u0301, caf\u00e9", ["caf\u00e9"]),  # é as two characters, as on a Mac
        ("1. a dog\n2) a cat\n- a cow\n • a pig", ["a dog", "a cat", "a cow", "a pig"]),  # a list
        ("a dog... a cat…", ["a dog", "a cat…"]),  # dots
        ("!!: 0.4, : 0.4, a cat", ["a cat"]),  # a threshold of nothing
        (",".join(map(str, range(20))), [*map(str, range(20))]),  # as many as there may be
        ("x" * 80 + "," * 3920, ["x" * 80]),  # as long
    ],
)
def test_phrases(prompt: str, phrases: list[str]) -> None:
    query = parse_prompt(prompt)
    assert (query.phrases, query.negatives, query.thresholds) == (phrases, [], {})


@pytest.mark.parametrize(
    ("prompt", "phrases", "negatives", "thresholds"),
    [
        ("dog -collar", ["dog"], ["collar"], {}),  # in the same piece
        ("dog, -its collar", ["dog"], ["its collar"], {}),  # a piece of its own
        ("dog -collar -tag", ["dog"], ["collar", "tag"], {}),  # two
        ("dog -dog", ["dog"], [], {}),  # both: asked for wins
        ("-dog, dog", ["dog"], [], {}),  # in either order
        ("a dog: 0.4, a cat:.25", ["a dog", "a cat"], [], {"a dog": 0.4, "a cat": 0.25}),
        ("a dog:1 -collar: 0.2", ["a dog"], ["collar"], {"a dog": 1.0, "collar": 0.2}),
        ("a dog: 0,4", ["a dog"], [], {"a dog": 0.4}),  # decimal commas
        (
            "a dog: 0,4, a cat: ,5 -tag: 0,1.",
            ["a dog", "a cat"],
            ["tag"],
            {"a dog": 0.4, "a cat": 0.5, "tag": 0.1},
        ),
        ("a dog: 0,4 cats", ["a dog", "4 cats"], [], {"a dog": 0.0}),  # a comma, after all
        ("boeing 747: 0.3", ["boeing 747"], [], {"boeing 747": 0.3}),  # after a digit
        ("boeing 747: 30%", ["boeing 747"], [], {"boeing 747": 0.3}),  # no time, no ratio
        ("a cup (red): 2.5 %", ["a cup (red)"], [], {"a cup (red)": 0.025}),
        ("a cup (red): 0.4", ["a cup (red)"], [], {"a cup (red)": 0.4}),  # after a bracket
        (
            "कुत्ता:0.4, a dog：0.3",
            ["कुत्ता", "a dog"],
            [],
            {"कुत्ता": 0.4, "a dog": 0.3},
        ),  # a vowel sign
        ("dog −collar –tag", ["dog"], ["collar", "tag"], {}),  # a minus sign, an en dash
        ("dog: 0.2 -dog: 0.9", ["dog"], [], {"dog": 0.2}),  # asked for wins, with its own
        ("-dog: 0.9, dog", ["dog"], [], {}),
        ('dog -"red collar"', ["dog"], ['"red collar"'], {}),  # in quotes
    ],
)
def test_negatives_and_thresholds(
    prompt: str, phrases: list[str], negatives: list[str], thresholds: dict[str, float]
) -> None:
    query = parse_prompt(prompt)
    assert (query.phrases, query.negatives) == (phrases, negatives)
    assert query.thresholds == thresholds


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "Type what to look for"),  # nothing
        (" ., \n ", "Type what to look for"),  # separators only
        ("-collar", "only what to leave out"),  # negatives only
        ("x" * 100, "phrase has 100 characters"),  # an endless phrase
        ("x" * 10_000, "prompt has 10000 characters"),  # an endless prompt
        (f"a: {'1' * 3000}x", "phrase has 3004 characters"),  # digits that invite backtracking
        (f"a: {'9' * 3000}", "is inf; it must be"),  # a number beyond all floats
        (", ".join(f"thing {i}" for i in range(200)), "has 200 phrases"),  # a whole vocabulary
        (",".join(map(str, range(MAX_PHRASES + 1))), "has 21 phrases"),  # one too many
        ("a dog" + "".join(f" -n{i}" for i in range(20)), "has 21 phrases"),  # negatives count
        ("a dog -" + "x" * 81, "phrase has 81 characters"),
        ("a \ud83d dog", "a broken character"),  # half an emoji
        ("a dog, 🐱", "“🐱” is a symbol; say in words what to look for"),
        ("a dog, 🐱: 0.4", "“🐱” is a symbol"),
        ("a dog: 4", "The threshold of “a dog” is 4"),  # above
        ("a dog: -0.5", "The threshold of “a dog” is -0.5"),  # below
    ],
)
def test_refused(prompt: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_prompt(prompt)
