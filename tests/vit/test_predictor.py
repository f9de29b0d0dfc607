import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vit.checkpoint import load_checkpoint
from vit.crop import Crop
from vit.predictor import Predictor
from vit.samples import load_samples, mistakes

ASSETS = Path(__file__).parents[2] / "assets"


def picture(width: int = 8, height: int = 8) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def test_equals_the_model_by_hand(tiny_checkpoint: Path) -> None:
    prediction = Predictor(tiny_checkpoint).predict(picture())
    checkpoint = load_checkpoint(tiny_checkpoint)
    x = np.asarray(picture()) / 255
    x = (x - checkpoint.preprocessing.mean) / checkpoint.preprocessing.std
    x = torch.tensor(x.transpose(2, 0, 1)[None], dtype=torch.float32)
    logits, attentions = checkpoint.model.forward_with_attention(x)
    assert list(prediction.probabilities) == ["red", "green", "blue"]
    assert list(prediction.probabilities.values()) == pytest.approx(logits[0].softmax(0).tolist())
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    torch.testing.assert_close(prediction.attentions, attentions)
    assert prediction.attentions.shape == (2, 1, 2, 17, 17)


def test_a_picture_of_the_right_size_is_seen_as_it_is(tiny_checkpoint: Path) -> None:
    prediction = Predictor(tiny_checkpoint).predict(picture())
    assert prediction.seen.tobytes() == picture().tobytes()
    assert prediction.box == (0, 0, 8, 8)


@pytest.mark.parametrize(
    ("crop", "box"),
    [
        (Crop(), (30, 0, 70, 40)),  # by default the middle
        (Crop(0, 0), (0, 0, 40, 40)),
        (Crop(1, 1, 0.25), (90, 30, 100, 40)),
    ],
)
def test_only_the_crop_is_seen(tiny_checkpoint: Path, crop: Crop, box: tuple[int, ...]) -> None:
    wide = Image.new("RGB", (100, 40), (255, 0, 0))
    wide.paste((0, 0, 255), box)
    prediction = Predictor(tiny_checkpoint).predict(wide, crop)
    assert (np.asarray(prediction.seen) == (0, 0, 255)).all()
    assert prediction.box == box


def test_answers_are_those_of_single_predictions(tiny_checkpoint: Path) -> None:
    shared = Predictor(tiny_checkpoint)
    model = shared.checkpoint.model
    pictures = [Image.new("RGB", (30, 20), colour) for colour in ("red", "lime", "blue", "white")]
    small = [image.resize((8, 8)) for image in pictures]
    with torch.no_grad():  # or the biases alone would decide
        model.head.bias -= model(shared.to_input(small)).mean(dim=0)
    single = [shared.predict(image).probabilities for image in pictures]
    answers = shared.answers(pictures)
    assert answers == [max(p, key=p.__getitem__) for p in single]
    assert len(set(answers)) > 1


def test_shrinking_does_not_alias(tiny_checkpoint: Path) -> None:
    """A fine chessboard is grey from afar; every eighth pixel of it is all black or all white."""
    board = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8))
    seen = np.asarray(Predictor(tiny_checkpoint).predict(board).seen)
    assert 120 < seen.min() <= seen.max() < 136


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_modes(tiny_checkpoint: Path, mode: str) -> None:
    prediction = Predictor(tiny_checkpoint).predict(picture(20, 9).convert(mode))
    assert (prediction.seen.mode, prediction.seen.size) == ("RGB", (8, 8))


@pytest.mark.parametrize(
    ("mode", "color", "seen"),
    [
        ("I;16", 0x4D00, (0x4D,) * 3),  # not clipped at 255
        ("RGBA", (0, 0, 0, 0), (255,) * 3),  # on white
        ("L", 9, (9,) * 3),
    ],
)
def test_pictures_of_other_programs_are_seen_as_on_the_page(
    tiny_checkpoint: Path, mode: str, color: object, seen: tuple[int, ...]
) -> None:
    prediction = Predictor(tiny_checkpoint).predict(Image.new(mode, (8, 8), color))
    assert prediction.seen.getcolors() == [(64, seen)]


def test_the_mode_and_the_random_numbers_of_the_caller_do_not_matter(tiny_checkpoint: Path) -> None:
    outside, inside = Predictor(tiny_checkpoint), Predictor(tiny_checkpoint)
    expected = outside.gradients(outside.predict(picture()), 1)
    before = torch.get_rng_state()
    with torch.inference_mode():
        found = inside.gradients(inside.predict(picture()), 1)
    assert torch.equal(found, expected) and expected.any()
    assert torch.equal(inside.gradients(inside.predict(picture()), 1), expected), "and afterwards"
    assert torch.equal(torch.get_rng_state(), before)


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.safetensors is not a checkpoint"):
        Predictor(tmp_path / "none.safetensors")


def test_threads_agree(tiny_checkpoint: Path) -> None:
    shared = Predictor(tiny_checkpoint)
    pictures = [Image.new("RGB", (8, 8), (30 * i, 0, 0)) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = [p.probabilities for p in pool.map(shared.predict, pictures)]
    assert together == [shared.predict(image).probabilities for image in pictures]
    assert len({tuple(p.values()) for p in together}) == 8


def test_shipped_checkpoint_knows_most_of_the_samples() -> None:
    shipped, samples = Predictor(ASSETS / "vit-cifar10.safetensors"), load_samples()
    answers = shipped.answers([sample.picture for sample in samples])
    # Some were picked because it is wrong about them: "mistakes only" has something to show.
    assert 3 <= len(mistakes(samples, answers, shipped.checkpoint.classes)) <= 9


def test_the_program_in_the_readme_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ASSETS.parent)
    program = re.search(
        r"```python\n(from pathlib.*?)```", Path("README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    exec(program[1], {})
    assert "'airplane': 0.9" in capsys.readouterr().out
