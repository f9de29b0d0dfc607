"""From the prompt a person types to the phrases a grounder looks for."""

import re

MAX_PHRASES = 20
MAX_PHRASE_CHARACTERS = 80


def parse_prompt(prompt: str) -> list[str]:
    """Split a prompt at commas, semicolons, line ends and full stops; keep each phrase once.

    Raises:
        ValueError: If no phrase is left, there are too many, or one is too long.

    >>> parse_prompt("A dog, the blue car")
    ['a dog', 'the blue car']
    >>> parse_prompt("a dog . the blue car .")
    ['a dog', 'the blue car']
    """
    # A full stop inside a number or a name ("2.5 l bottle") separates nothing.
    pieces = re.split(r"[,;\n]|\.(?=\s|$)", prompt.replace("\0", " "))
    phrases = dict.fromkeys(" ".join(piece.lower().split()) for piece in pieces)
    found = [phrase for phrase in phrases if any(map(str.isalnum, phrase))]
    if not found:
        raise ValueError("Type what to look for, for example: a dog, the blue car.")
    if len(found) > MAX_PHRASES:
        raise ValueError(
            f"The prompt has {len(found)} phrases; at most {MAX_PHRASES} can be looked for at once."
        )
    if longest := max((p for p in found if len(p) > MAX_PHRASE_CHARACTERS), key=len, default=""):
        raise ValueError(
            f"A phrase has {len(longest)} characters; at most {MAX_PHRASE_CHARACTERS} are allowed. "
            "Separate phrases with commas."
        )
    return found
