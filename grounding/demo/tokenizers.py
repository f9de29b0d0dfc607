"""Small vocabularies for the stock BERT and CLIP tokenizers, made of the words of `words.py`.

A word outside the vocabulary falls to single letters, as it does in the full-size tokenizers.
"""

import string

from tokenizers.pre_tokenizers import ByteLevel
from transformers import BertTokenizer, CLIPTokenizer

from grounding.demo.words import vocabulary

MAX_CLIP_TOKENS = 16
_END = "</w>"
# transformers' GroundingDINO finds the borders of phrases by these ids of bert-base-uncased.
_BERT_ROWS = {
    "[PAD]": 0,
    "[UNK]": 100,
    "[CLS]": 101,
    "[SEP]": 102,
    "[MASK]": 103,
    ",": 1010,
    "-": 1011,
    ".": 1012,
    "?": 1029,
}
_BERT_ROWS_TOTAL = 1030


def bert_vocabulary() -> dict[str, int]:
    """Return the row of every WordPiece; rows without a piece are called [unusedN]."""
    letters = string.ascii_lowercase + string.digits
    pieces = [*letters, *(f"##{letter}" for letter in letters), *vocabulary()]
    rows = dict(_BERT_ROWS)
    free = (row for row in range(_BERT_ROWS_TOTAL) if row not in _BERT_ROWS.values())
    for piece in pieces:
        if piece not in rows:
            rows[piece] = next(free)
    return rows | {f"[unused{row}]": row for row in free}


def make_bert_tokenizer() -> BertTokenizer:
    """Return the stock BERT tokenizer with the small vocabulary."""
    return BertTokenizer(vocab=bert_vocabulary())


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """Join every occurrence of a pair of neighbours."""
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def clip_merges() -> list[tuple[str, str]]:
    """Return byte-pair merges that make one token of each word of the vocabulary.

    A merge that comes later has a lower rank, so it never undoes the tokens of earlier words.
    """
    merges: list[tuple[str, str]] = []
    for word in vocabulary():
        pieces = [*word[:-1], word[-1] + _END]
        for pair in merges:
            pieces = _merge(pieces, pair)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = _merge(pieces, merges[-1])
    return merges


def make_clip_tokenizer() -> CLIPTokenizer:
    """Return the stock CLIP tokenizer with the small vocabulary."""
    merges = clip_merges()
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + _END for letter in letters), *(a + b for a, b in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    rows = {token: row for row, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=rows, merges=merges, model_max_length=MAX_CLIP_TOKENS)
