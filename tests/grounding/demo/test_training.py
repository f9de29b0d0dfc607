import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from grounding.demo import train_glip, train_sam2
from grounding.demo.calibration import calibration_scenes, fit_sigmoid
from grounding.demo.dense import cell_labels
from grounding.demo.evaluate import average_precision, judge
from grounding.demo.scenes import make_scene, queries
from grounding.demo.set_loss import assign
from grounding.demo.sprites import load_sprites
from grounding.demo.train import RECIPES, Run, learning_rate, main, train
from grounding.demo.train_grounding_dino import (
    EVEN_SCORE,
    IMAGE_SIZE,
    build,
    judged_boxes,
    load,
    make_processor,
    nearly_constant,
    rescale_scores,
)
from grounding.demo.words import NAMES
from grounding.grounders.glip.checkpoint import load_weights
from grounding.grounders.glip.config import read_config
from grounding.grounders.glip.model import Glip
from grounding.weights import DEMO_ROOT


class LineRecipe:
    """Fit y = 2 x: a recipe that trains in no time."""

    LEARNING_RATE = 0.05
    BATCH = 4

    def build(self) -> nn.Module:
        return nn.Linear(1, 1)

    def loss(self, model: nn.Module, rng: np.random.Generator, progress: float) -> Tensor:
        self.progress = progress
        x = torch.from_numpy(rng.uniform(-1, 1, (self.BATCH, 1)).astype(np.float32))
        return (model(x) - 2 * x).square().mean()

    def save(self, model: nn.Module, folder: Path) -> None:
        (folder / "slope").write_text(str(model.weight.item()))

    def load(self, folder: Path) -> nn.Module:
        model = nn.Linear(1, 1)
        nn.init.constant_(model.weight, float((folder / "slope").read_text()))
        return model

    def evaluate(self, model: nn.Module, scenes: int) -> dict[str, float]:
        return {"slope": model.weight.item()}


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = Run("line", LineRecipe(), tmp_path, rate=0.01)
    for _ in range(5):
        first.step(0.1)
    first.save()
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    second = Run("line", LineRecipe(), tmp_path)
    second.load()
    assert [first.step(0.2) for _ in range(5)] == [second.step(0.2) for _ in range(5)]
    assert second.progress.pictures == 40


def test_training_learns_exports_and_writes_metrics(tmp_path: Path) -> None:
    torch.manual_seed(0)
    run = Run("line", LineRecipe(), tmp_path / "run")
    before = run.step(0.0)
    train(run, minutes=0.02, out=tmp_path / "out", every=1.0, scenes=3)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert run.step(1.0) < before
    assert metrics["steps"] == run.progress.steps - 1
    assert set(metrics) == {"trained_minutes", "steps", "pictures", "held_out", "start", "note"}


@pytest.mark.parametrize(
    ("flag", "value"),
    [("minutes", "nan"), ("minutes", "0"), ("threads", "-1"), ("every", "0"), ("scenes", "0")],
)
def test_numbers_that_make_no_training(
    tmp_path: Path, flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["sam2", f"--{flag}", value, "--out", str(tmp_path / "out")])
    assert f"--{flag} is {value}; it must be above 0" in capsys.readouterr().err.replace(".0;", ";")
    assert not (tmp_path / "out").exists()


def test_a_run_starts_from_exported_weights_and_says_so(tmp_path: Path) -> None:
    first = Run("line", LineRecipe(), tmp_path / "first")
    first.step(0.0)
    first.export(tmp_path, scenes=3)
    second = Run("line", LineRecipe(), tmp_path / "second", start=tmp_path)
    assert second.model.weight.item() == second.average.weight.item() == first.average.weight.item()
    second.save()
    third = Run("line", LineRecipe(), tmp_path / "second")
    third.load()
    third.export(tmp_path, scenes=3)
    assert json.loads((tmp_path / "metrics.json").read_text())["start"]["steps"] == 1


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.8), (0.5, 0.9), (1.0, 1.0)])
def test_a_run_from_exported_weights_begins_near_the_end(
    tmp_path: Path, share: float, expected: float
) -> None:
    recipe = LineRecipe()
    Run("line", recipe, tmp_path / "first").export(tmp_path, scenes=3)
    Run("line", recipe, tmp_path / "second", start=tmp_path).step(share)
    assert recipe.progress == pytest.approx(expected)


def test_a_run_from_exported_weights_sees_other_scenes(tmp_path: Path) -> None:
    first = Run("line", LineRecipe(), tmp_path / "first")
    first.step(0.0)
    first.export(tmp_path, scenes=3)
    second = Run("line", LineRecipe(), tmp_path / "second", start=tmp_path)
    second.model.load_state_dict(first.average.state_dict())
    third = Run("line", LineRecipe(), tmp_path / "third")
    third.model.load_state_dict(first.average.state_dict())
    assert second.step(0.0) != third.step(0.0)


def test_a_run_from_exported_weights_keeps_the_mean_of_all_steps(tmp_path: Path) -> None:
    first = Run("line", LineRecipe(), tmp_path / "first")
    first.step(0.0)
    first.export(tmp_path, scenes=3)
    second = Run("line", LineRecipe(), tmp_path / "second", start=tmp_path)
    seen = []
    for _ in range(30):
        second.step(0.5)
        seen.append(second.model.weight.item())
    expected = np.average(seen, weights=np.arange(1, 31))
    assert second.average.weight.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", RECIPES)
def test_every_model_starts_from_the_weights_that_ship(name: str) -> None:
    """What is loaded for training answers as what the app loads; the logits' scale may differ."""
    recipe = importlib.import_module(RECIPES[name])
    shipped = DEMO_ROOT / name
    metrics = json.loads((shipped / "metrics.json").read_text())["held_out"]
    key = next(iter(metrics))
    assert recipe.evaluate(recipe.load(shipped).eval(), 6)[key] > metrics[key] - 0.2


@pytest.mark.parametrize(
    ("steps", "share", "expected"),
    [
        (0, 0.0, 1 / 150),  # warm-up
        (1000, 0.5, 0.51),  # half-way down the cosine
        (1000, 1.5, 0.02),  # past the end stays at the floor
    ],
)
def test_learning_rate(steps: int, share: float, expected: float) -> None:
    assert learning_rate(1.0, steps, share) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("progress", "size"),
    [(0.0, 128), (0.4, 128), (0.5, 256), (0.9, 384), (1.0, 384)],
)
def test_sam2_is_trained_on_larger_and_larger_pictures(
    progress: float, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    make = train_sam2.make_scene
    monkeypatch.setattr(train_sam2, "BATCH", 1)
    monkeypatch.setattr(train_sam2, "make_scene", lambda *of: seen.append(of[1]) or make(*of))
    train_sam2.loss(train_sam2.build(), np.random.default_rng(0), progress)
    assert seen == [size]


@pytest.mark.parametrize("name", RECIPES)
def test_one_step_of_every_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    recipe = importlib.import_module(RECIPES[name])
    monkeypatch.setattr(recipe, "BATCH", 2)
    run = Run(name, recipe, tmp_path)
    assert np.isfinite(run.step(0.0))
    changed = [p.grad is not None and p.grad.abs().sum() > 0 for p in run.model.parameters()]
    assert np.mean(changed) > 0.6


def test_cell_labels_name_the_object_that_fills_a_cell() -> None:
    made = make_scene(np.random.default_rng(2), 128)
    names, colours = cell_labels([made], 16)
    largest = made.masks.sum(axis=(1, 2)).argmax()
    row, column = np.argwhere(made.masks[largest]).mean(axis=0).astype(int) // 8
    assert names.shape == colours.shape == (1, 16, 16)
    assert names[0, row, column] in (0, -100, 1 + NAMES.index(made.names[largest]))
    assert (names[0] == 1 + NAMES.index(made.names[largest])).any()


def test_assign_gives_each_object_its_cheapest_queries_once() -> None:
    cost = torch.tensor([[[1.0, 0.5], [2.0, 0.6], [3.0, 9.0]]])
    assert assign(cost, 1).tolist() == [[1, 0, -1]]
    cost[..., 0] = torch.inf  # no such object
    assert assign(cost, 1).tolist() == [[1, -1, -1]]


def test_fitted_scores_are_chances() -> None:
    torch.manual_seed(0)
    logits = torch.linspace(-3, 3, 4000)
    right = torch.rand(4000) < (2 * logits - 1).sigmoid()
    assert fit_sigmoid(logits, right) == pytest.approx((2.0, -1.0), abs=0.3)


def test_rescaling_changes_scores_alone() -> None:
    torch.manual_seed(0)
    trainee = build().eval()
    detector = trainee.detector
    inputs = make_processor()(
        images=np.zeros((64, 64, 3), np.uint8), text=[["a dog", "car"]], return_tensors="pt"
    )
    with torch.no_grad():
        before = detector(**inputs)
        rescale_scores(detector, 3.0, 2.0, nearly_constant(trainee))
        after = detector(**inputs)
    tokens = inputs["input_ids"].shape[1]
    expected = 3 * before.logits[..., :tokens] + 2
    assert torch.allclose(after.logits[..., :tokens], expected, atol=1e-3)
    assert torch.allclose(after.pred_boxes, before.pred_boxes, atol=1e-4)


def test_an_even_chance_has_the_score_it_was_given() -> None:
    """Training moves what rescaling takes for constant; the shipped scores are right even so."""
    shipped = load(DEMO_ROOT / "grounding_dino").eval()
    scale, shift = fit_sigmoid(*judged_boxes(shipped, calibration_scenes(100, IMAGE_SIZE))[:2])
    assert 1 / (1 + np.exp(shift / scale)) == pytest.approx(EVEN_SCORE, abs=0.1)


def test_tokens_of_an_object_spell_the_phrases_that_mean_it() -> None:
    scene = make_scene(np.random.default_rng(3), 128)
    asked = queries(scene, 6, 2, np.random.default_rng(0))
    tokenizer = train_glip.make_bert_tokenizer()
    batch = train_glip.make_batch([scene, scene], [asked, asked[:1]], tokenizer)
    meaning = [[q.phrase for q in asked if q.members[i]] for i in range(len(scene.names))]
    spelt = [tokenizer.decode(batch.input_ids[0, row > 0]) for row in batch.objects[0].tokens]
    assert spelt == [" ".join(phrases) for phrases in meaning if phrases]
    assert batch.valid.sum(dim=1).tolist() == [(row != 0).sum() for row in batch.input_ids]


@torch.no_grad()
def test_rescaling_glip_changes_scores_alone() -> None:
    torch.manual_seed(0)
    glip = train_glip.build().glip.eval()
    glip.bias_lang.normal_()
    inputs = torch.randn(1, 3, 64, 64), torch.tensor([[101, 5, 6, 102]])
    before = glip(*inputs)
    train_glip.rescale_scores(glip, 3.0, 2.0)
    after = glip(*inputs)
    for old, new in zip(before.logits, after.logits, strict=True):
        assert torch.allclose(new, 3 * old + 2, atol=1e-4)
    assert all(torch.equal(*pair) for pair in zip(before.deltas, after.deltas, strict=True))


def test_glip_is_saved_as_it_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_glip, "_calibrate", lambda trainee: (1.0, 0.0))
    trainee = train_glip.build()
    train_glip.save(trainee, tmp_path)
    loaded = Glip(read_config(tmp_path / "config.json"))
    weights = load_file(tmp_path / "model.safetensors")
    load_weights(loaded, {name: value.float() for name, value in weights.items()}, tmp_path)
    for name, value in trainee.glip.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    rows = (tmp_path / "vocab.txt").read_text().splitlines()
    assert (len(rows), rows[0], rows[101]) == (loaded.config.vocab_size, "[PAD]", "[CLS]")


@pytest.mark.parametrize(
    ("found", "objects", "expected"),
    [
        ([(0.9, True)], 1, 1.0),  # perfect
        ([(0.9, True)], 2, 0.5),  # one missed
        ([(0.9, False), (0.8, True)], 1, 0.5),  # a wrong one first
        ([(0.9, False)], 1, 0.0),  # nothing right
    ],
)
def test_average_precision(found: list, objects: int, expected: float) -> None:
    assert average_precision(found, objects) == pytest.approx(expected)


def test_an_object_counts_once() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 11]], np.float32)
    truth = np.array([[0, 0, 10, 10]], np.float32)
    marked = judge(boxes, np.array([0.5, 0.9]), truth)
    assert [good for _, good in marked] == [True, False]


def test_sprites_load_once() -> None:
    assert load_sprites() is load_sprites()
