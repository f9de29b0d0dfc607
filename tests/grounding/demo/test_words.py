import numpy as np
import pytest

from grounding.demo.sprites import SPRITE_DIR, load_sprites, stem
from grounding.demo.tokenizers import make_bert_tokenizer, make_clip_tokenizer
from grounding.demo.words import COLOURS, PAINTS, THINGS, make_phrase, plural, vocabulary


def test_names_and_synonyms_mean_one_thing_each() -> None:
    words = [word for thing in THINGS for word in (thing.name, *thing.synonyms)]
    assert len(words) == len(set(words))
    assert len(words) >= 100


def test_every_sprite_has_a_file_and_every_file_a_sprite() -> None:
    named = {f"{stem(emoji)}.webp" for thing in THINGS for emoji in thing.sprites}
    assert named == {path.name for path in SPRITE_DIR.glob("*.webp")}
    assert sum(path.stat().st_size for path in SPRITE_DIR.iterdir()) < 1_500_000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dog", "dogs"),  # regular
        ("butterfly", "butterflies"),  # irregular, from the table
        ("fish", "fish"),  # the same
    ],
)
def test_plural(name: str, expected: str) -> None:
    assert plural(name) == expected


def test_phrases_name_thing_and_colour_and_agree_with_the_article() -> None:
    rng = np.random.default_rng(0)
    phrases = {make_phrase("apple", colour, rng) for colour in ("", "red") for _ in range(99)}
    assert {"apple", "an apple", "a red apple", "the red apples"} <= phrases
    assert not any(phrase.startswith("a a") for phrase in phrases)
    assert set(" ".join(phrases).split()) <= set(vocabulary())


def test_colours_include_every_paint_and_every_natural_colour() -> None:
    natural = {colour for thing in THINGS for colour in thing.sprites.values()}
    assert natural | set(PAINTS) <= {*COLOURS, ""}


@pytest.mark.parametrize(
    ("paint", "channel"),
    [
        ("red", 0),  # the strongest of RGB
        ("green", 1),
        ("blue", 2),
    ],
)
def test_repainted_sprites_show_their_colour(paint: str, channel: int) -> None:
    for name in ("car", "balloon", "heart", "backpack"):
        sprite = next(s for s in load_sprites()[name] if s.colour == paint)
        pixels = sprite.levels[0].reshape(-1, 4)
        saturation = np.ptp(pixels[:, :3], axis=1)
        vivid = pixels[saturation > np.quantile(saturation, 0.8), :3].mean(axis=0)
        assert vivid.argmax() == channel, name


def test_each_word_is_one_token_and_rare_words_fall_to_pieces() -> None:
    for tokenizer in (make_bert_tokenizer(), make_clip_tokenizer()):
        for word in vocabulary():
            assert len(tokenizer.tokenize(word)) == 1, word
        assert len(tokenizer.tokenize("qwerty")) > 1
        assert tokenizer.unk_token not in tokenizer.tokenize("qwerty")


def test_tokenizers_round_trip() -> None:
    phrase = "the blue car"
    for tokenizer in (make_bert_tokenizer(), make_clip_tokenizer()):
        ids = tokenizer(phrase)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == phrase


@pytest.mark.parametrize(
    ("token", "row"),
    [
        ("[CLS]", 101),  # rows GroundingDINO has wired in
        ("[SEP]", 102),
        (".", 1012),
        ("?", 1029),
    ],
)
def test_rows_grounding_dino_expects(token: str, row: int) -> None:
    tokenizer = make_bert_tokenizer()
    assert tokenizer.convert_tokens_to_ids(token) == row
    assert len(tokenizer) >= 1030
