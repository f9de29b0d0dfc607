"""From phrases to a caption, its tokens, and which tokens belong to which phrase."""

from typing import Any

import torch
from torch import Tensor

SEPARATOR = ". "
Span = tuple[int, int]


def join(phrases: list[str]) -> tuple[str, list[Span]]:
    """Write phrases in one caption, and say where in it each of them stands.

    >>> join(["cat", "old dog"])
    ('cat. old dog', [(0, 3), (5, 12)])
    """
    spans: list[Span] = []
    start = 0
    for phrase in phrases:
        spans.append((start, start + len(phrase)))
        start += len(phrase) + len(SEPARATOR)
    return SEPARATOR.join(phrases), spans


def encode(
    tokenizer: Any, caption: str, spans: list[Span], max_tokens: int
) -> tuple[Tensor, Tensor]:
    """Turn a caption into tokens.

    Args:
        tokenizer: transformers' fast BERT tokenizer.
        caption: The text.
        spans: First and last + 1 character of each phrase.
        max_tokens: A longer caption is cut off, its last token put at the end.

    Returns:
        Token ids int64 (1, T), and the tokens of each phrase, bool (P, T). A phrase beyond the end
        has none, except that the last token stands for what has been at its place.
    """
    whole = tokenizer(caption, verbose=False)
    ids = whole["input_ids"]
    positive = torch.zeros(len(spans), max(len(ids), max_tokens), dtype=torch.bool)
    for row, (begin, end) in zip(positive, spans, strict=True):
        # A phrase may begin or end with what belongs to no token: a space, joiners.
        first = _token(whole, range(begin, end))
        last = _token(whole, range(end - 1, begin - 1, -1))
        if first is not None and last is not None:
            row[first : last + 1] = True
    if len(ids) > max_tokens:
        ids = [*ids[: max_tokens - 1], ids[-1]]
    return torch.tensor([ids]), positive[:, : len(ids)]


def _token(whole: Any, characters: range) -> int | None:
    """Return the token of the first of the characters that belongs to one."""
    tokens = (whole.char_to_token(0, character) for character in characters)
    return next((token for token in tokens if token is not None), None)
