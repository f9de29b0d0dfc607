"""From the prompt a person types to the phrases a grounder looks for."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_PROMPT_CHARACTERS = 4000
MAX_PHRASES = 20
MAX_PHRASE_CHARACTERS = 80
FOREIGN_ARTICLES = re.compile(
    r"(das|der|eine?[nmr]?|el|il|las?|les?|lo|los|os?|uma?|une?|uno|una)\b"
)
# Of a threshold; a blank or a separator follows, so that "a dog: 0,4 cats" is two phrases.
DECIMAL_COMMA = re.compile(r"(:\s*-?\d*),(\d+)(?=\s*(?:[,;.\n%]|\s-|$))")
THRESHOLD = re.compile(r"(.*[^\s\d!-/:-@\[-`{-~])\s*:\s*(-?\d*\.?\d+\s*%?)")
# After a digit ("16:9") or a bracket it may be a time or a ratio, unless it looks like this.
FRACTION = re.compile(r"(.*\S|):\s+(-?\d*\.\d+\s*%?|-?\d+\s*%)")
# What other keyboards and word processors write for separators and the minus sign; and blanks of no
# width, as at the beginning of a file or from a web page.
KEYBOARDS = str.maketrans("，、､،；؛。：．−–\ufeff\u200b", ",,,,;;;:.--  ")
BULLET = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+", re.MULTILINE)
EXAMPLE = "Type what to look for, for example: a dog, the blue car."


@dataclass(frozen=True)
class Query:
    """Hold what a prompt asks for.

    Attributes:
        phrases: What to look for, in the prompt's order.
        negatives: What to take out of the result.
        thresholds: The lowest score of a phrase, where the prompt gives one of its own.
    """

    phrases: list[str]
    negatives: list[str] = field(default_factory=list)
    thresholds: dict[str, float] = field(default_factory=dict)


def parse_prompt(prompt: str) -> Query:
    """Split a prompt at commas, semicolons, line ends and full stops; keep each phrase once.

    A minus sign before a word makes it and the rest of its phrase a negative; a number after a
    colon is the phrase's own threshold, with a decimal point or comma, or in per cent.

    Raises:
        ValueError: If no phrase is left, there are too many, one or all together are too long or
            a threshold is not in [0, 1], or one is a symbol.

    >>> parse_prompt("A dog, the blue car").phrases
    ['a dog', 'the blue car']
    >>> parse_prompt("a dog: 0,4 -collar . a cat .")
    Query(phrases=['a dog', 'a cat'], negatives=['collar'], thresholds={'a dog': 0.4})
    >>> parse_prompt("a dog: 40%").thresholds
    {'a dog': 0.4}
    """
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise ValueError(
            f"The prompt has {len(prompt)} characters; at most {MAX_PROMPT_CHARACTERS} are allowed."
        )
    if any("\ud800" <= c <= "\udfff" for c in prompt):  # halves of characters, from a program
        raise ValueError("The prompt holds a broken character; please type it again.")
    found: dict[str, bool] = {}
    own: dict[tuple[str, bool], float] = {}
    for text, negative in _pieces(prompt):
        phrase, threshold = _split_threshold(text)
        if not _is_phrase(phrase):
            continue
        # Asked for and taken out: what is asked for wins.
        found[phrase] = negative and found.get(phrase, True)
        if threshold is not None:
            own[phrase, negative] = threshold
    phrases = [phrase for phrase, negative in found.items() if not negative]
    _check(phrases, list(found))
    thresholds = {used[0]: own[used] for used in found.items() if used in own}
    return Query(phrases, [phrase for phrase in found if found[phrase]], thresholds)


def looks_foreign(phrase: str) -> bool:
    """Return whether a phrase is likely not English, which is all that the models have learned.

    >>> [looks_foreign(phrase) for phrase in ("a dog", "un perro", "собака", "a 🐕")]
    [False, True, True, False]
    """
    letters = "".join(filter(str.isalpha, phrase))
    return not letters.isascii() or bool(FOREIGN_ARTICLES.match(phrase))


def _pieces(prompt: str) -> Iterator[tuple[str, bool]]:
    """Yield each piece, tidied, and whether it is a negative."""
    prompt = unicodedata.normalize("NFC", prompt.replace("\0", " ").translate(KEYBOARDS))
    prompt = BULLET.sub("", prompt)
    # A full stop inside a number or a name ("2.5 l bottle") separates nothing.
    for piece in re.split(r"[,;\n]|\.+(?=\s|$)", DECIMAL_COMMA.sub(r"\1.\2", prompt)):
        # A minus inside a word ("t-shirt") is a hyphen, and one before a blank is a dash.
        for i, part in enumerate(re.split(r"""(?:^|(?<=\s))-(?=["“'‘]?[^\W\d_])""", piece)):
            yield " ".join(part.lower().split()), i > 0


def _is_phrase(text: str) -> bool:
    """Return whether there is a letter or digit, without which there is nothing to look for.

    Raises:
        ValueError: If there is an emoji or another symbol in its place.
    """
    if any(map(str.isalnum, text)):
        return True
    if any(unicodedata.category(c) == "So" for c in text):
        raise ValueError(f"“{text}” is a symbol; say in words what to look for.")
    return False


def _split_threshold(text: str) -> tuple[str, float | None]:
    match = THRESHOLD.fullmatch(text) or FRACTION.fullmatch(text)
    if not match:
        return text, None
    phrase, said = match[1], match[2]
    value = float(said.rstrip("% ")) / (100 if said.endswith("%") else 1)
    if not 0 <= value <= 1:
        raise ValueError(f"The threshold of “{phrase}” is {value:g}; it must be between 0 and 1.")
    return phrase, value


def _check(phrases: list[str], found: list[str]) -> None:
    if not phrases:
        only = "The prompt says only what to leave out. " if found else ""
        raise ValueError(only + EXAMPLE)
    if len(found) > MAX_PHRASES:
        raise ValueError(
            f"The prompt has {len(found)} phrases; at most {MAX_PHRASES} can be looked for at once."
        )
    if longest := max((p for p in found if len(p) > MAX_PHRASE_CHARACTERS), key=len, default=""):
        raise ValueError(
            f"A phrase has {len(longest)} characters; at most {MAX_PHRASE_CHARACTERS} are allowed. "
            "Separate phrases with commas."
        )
