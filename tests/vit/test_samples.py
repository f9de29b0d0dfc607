from collections import Counter

from PIL import Image

from vit.samples import Sample, load_samples, mistakes


def test_samples() -> None:
    samples = load_samples()
    assert set(Counter(sample.label for sample in samples).values()) == {3}
    assert len(samples) == 30
    assert {sample.picture.size for sample in samples} == {(32, 32)}
    assert len({sample.picture.tobytes() for sample in samples}) == 30


def test_mistakes() -> None:
    rows = [
        ("cat", "cat"),  # right
        ("cat", "dog"),
        ("oak", "dog"),  # a class that the model does not know
        ("dog", "cat"),
    ]
    samples = [Sample(Image.new("RGB", (32, 32)), label) for label, _ in rows]
    assert mistakes(samples, [answer for _, answer in rows], ("cat", "dog")) == {1: "dog", 3: "cat"}
