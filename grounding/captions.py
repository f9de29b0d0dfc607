"""Sharing phrases out over captions, for grounders that read several phrases at once."""


def pack(lengths: list[int], room: int) -> list[list[int]]:
    """Share phrases out over captions of at most `room` tokens, a separator after each phrase.

    Args:
        lengths: Number of tokens of each phrase.
        room: Tokens a caption may hold, without its first and last.

    Returns:
        The numbers of the phrases in each caption, in order.

    >>> pack([2, 1, 3], room=5)
    [[0, 1], [2]]
    """
    captions: list[list[int]] = []
    used = room
    for number, length in enumerate(lengths):
        if used + length + 1 > room:
            captions.append([])
            used = 0
        captions[-1].append(number)
        used += length + 1
    return captions
