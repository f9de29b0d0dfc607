import pytest
from transformers import BertTokenizer

from grounding.grounders.glip import VOCABULARY
from grounding.grounders.glip.caption import Span, encode, join


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return BertTokenizer(str(VOCABULARY))


@pytest.mark.parametrize(
    ("phrases", "tokens"),
    [
        (["dog"], [["dog"]]),
        (["x", "8", "dog"], [["x"], ["8"], ["dog"]]),  # a single letter, a digit
        (["a dog", "the blue car"], [["a", "dog"], ["the", "blue", "car"]]),
        (["cup ", "dog"], [["cup"], ["dog"]]),  # a space at the end belongs to no token
        (["", "dog"], [[], ["dog"]]),  # nothing is left of a phrase
        (["zyzzyva"], [["z", "##y", "##zzy", "##va"]]),  # a word in pieces
        (["café", "DOG"], [["cafe"], ["dog"]]),  # accents and capitals
        (["dog", "dog"], [["dog"], ["dog"]]),  # each its own place
        (["a (red) cup", "(mug)"], [["a", "(", "red", ")", "cup"], ["(", "mug", ")"]]),  # brackets
        (["a dog. a cat"], [["a", "dog", ".", "a", "cat"]]),  # a separator inside a phrase
    ],
)
def test_tokens_of_each_phrase(
    tokenizer: BertTokenizer, phrases: list[str], tokens: list[list[str]]
) -> None:
    ids, positive = encode(tokenizer, *join(phrases), max_tokens=256)
    words = tokenizer.convert_ids_to_tokens(ids[0].tolist())
    found = [[w for w, mine in zip(words, row, strict=True) if mine] for row in positive]
    assert found == tokens
    assert positive.sum(0).max() <= 1


@pytest.mark.parametrize(
    ("max_tokens", "length", "tokens"),
    [
        (9, 6, [[1], [3, 4]]),  # [CLS] dog . red car [SEP]
        (6, 6, [[1], [3, 4]]),  # it just fits
        (5, 5, [[1], [3, 4]]),  # "car" is cut off: [SEP] stands for it, as in the official code
        (4, 4, [[1], [3]]),
        (3, 3, [[1], []]),  # the second phrase is gone
    ],
)
def test_a_long_caption_is_cut_off(
    tokenizer: BertTokenizer, max_tokens: int, length: int, tokens: list[list[int]]
) -> None:
    ids, positive = encode(tokenizer, *join(["dog", "red car"]), max_tokens)
    assert ids.shape == (1, length)
    assert ids[0, -1] == tokenizer.sep_token_id
    assert [row.nonzero().flatten().tolist() for row in positive] == tokens


def test_a_span_without_text_has_no_token(tokenizer: BertTokenizer) -> None:
    spans: list[Span] = [(3, 8), (0, 3)]
    _, positive = encode(tokenizer, "dog      .", spans, 256)
    assert positive.sum(1).tolist() == [0, 1]
