import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vit import ablation, report, training
from vit.ablation import ablate, try_variants
from vit.checkpoint import Preprocessing, load_checkpoint, save_checkpoint
from vit.data import ImageSet, Split, random_split
from vit.model import ViT
from vit.recipes import RECIPES, TrainConfig
from vit.training import Trainer

CONFIG = TrainConfig(epochs=1, batch_size=4, crop_padding=1)
SIZES = {"image_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
STUDIES = {
    "patch size": ({"patch_size": 4}, {"patch_size": 8}),
    "optimizer": ({"optimizer": "adamw"}, {"optimizer": "adam"}),
}
CPU = torch.device("cpu")
Make = Callable[..., Path]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the runs that were trained."""
    names = []
    train_step = Trainer.train_step

    def step(self: Trainer) -> torch.Tensor:
        if self.step == 0:
            names.append(self.folder.name)
        return train_step(self)

    monkeypatch.setattr(Trainer, "train_step", step)
    monkeypatch.setattr(report, "announce_missing_packages", lambda: None)
    monkeypatch.setattr(report, "plot_curve", lambda *_: None)
    monkeypatch.setattr(report, "plot_confusion", lambda *_: None)
    monkeypatch.setattr(report, "write_tensorboard", lambda *_: None)
    return names


def test_table_and_plots(
    tmp_path: Path, tiny_set: ImageSet, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, plot_bars = {}, report.plot_bars

    def plot(path: Path, title: str, names: list[str], bars: dict[str, list[list[float]]]) -> None:
        drawn[title] = [len(names), *map(len, bars.values())]
        plot_bars(path, title, names, bars)

    monkeypatch.setattr(report, "plot_bars", plot)
    ablate(STUDIES, CONFIG, SIZES, tiny_set, tmp_path, CPU)
    assert trained == ["base", "patch_size=8", "optimizer=adam"]  # the base only once
    with (tmp_path / "ablation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["study"], row["value"]) for row in rows] == [
        ("patch size", "patch_size 4"),
        ("patch size", "patch_size 8"),
        ("optimizer", "optimizer adamw"),
        ("optimizer", "optimizer adam"),
    ]
    assert rows[0]["test_accuracy"] == rows[2]["test_accuracy"]
    assert int(rows[1]["parameters"]) > int(rows[0]["parameters"])  # larger patches to embed
    assert all(0 <= float(row["train_accuracy"]) <= 1 for row in rows)
    table = (tmp_path / "ablation.md").read_text().splitlines()
    assert "with batch_size=4 epochs=1" in table[0]
    assert len(table) == 4 + len(rows)
    assert len({line.count("|") for line in table[2:]}) == 1
    assert drawn == {"patch size": [2, 2, 2], "optimizer": [2, 2, 2]}, "each has its own rows"
    for name in ("patch-size.png", "optimizer.png"):
        assert (tmp_path / name).stat().st_size > 5000


def test_finished_runs_are_skipped(
    tmp_path: Path, tiny_set: ImageSet, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ablate(STUDIES, CONFIG, SIZES, tiny_set, tmp_path, CPU)
    lines = (tmp_path / "ablation.csv").read_text().splitlines()
    (tmp_path / "ablation.csv").write_text("\n".join(lines[:-1]) + "\n")
    trained.clear()
    ablate(STUDIES, CONFIG, SIZES, tiny_set, tmp_path, CPU)
    assert trained == []  # the last row comes from the finished run's state
    assert "at its end" not in capsys.readouterr().out  # more epochs would be refused
    assert (tmp_path / "ablation.csv").read_text().splitlines() == lines


def test_rows_of_older_studies_are_kept_and_not_counted(
    tmp_path: Path, tiny_set: ImageSet, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting's row of before it was repeated, and a study that is no more."""
    older = {"optimizer": STUDIES["optimizer"], "depth": ({"depth": 2},)}
    seeds = ({"optimizer": "adamw", "seed": 0}, {"optimizer": "adamw", "seed": 1})
    ablate(older, CONFIG, SIZES, tiny_set, tmp_path, CPU)
    ablate({"optimizer": seeds}, CONFIG, SIZES, tiny_set, tmp_path, CPU)
    assert "0 of 2 runs are in" in capsys.readouterr().out
    _, _, _, _, *table = (tmp_path / "ablation.md").read_text().splitlines()
    (row,) = table
    assert row.startswith("| optimizer | optimizer adamw |")
    assert row.count(",") == 2, "two seeds, for the training and the test pictures"
    with (tmp_path / "ablation.csv").open(newline="") as file:
        assert [row["value"] for row in csv.DictReader(file)] == [
            *("optimizer adamw", "optimizer adam", "depth 2"),
            *("optimizer adamw, seed 0", "optimizer adamw, seed 1"),
        ]


def test_a_stopped_run_goes_on(
    tmp_path: Path, tiny_set: ImageSet, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, steps = Trainer.run, []

    def stopped(self: Trainer) -> None:
        self.train_step()
        self.save_state()

    monkeypatch.setattr(Trainer, "run", stopped)
    assert not ablate(STUDIES, CONFIG, SIZES, tiny_set, tmp_path, CPU)
    assert trained == ["base"]
    assert not (tmp_path / "ablation.csv").exists()
    monkeypatch.setattr(Trainer, "run", lambda self: steps.append(self.step) or run(self))
    assert ablate(STUDIES, CONFIG, SIZES, tiny_set, tmp_path, CPU)
    assert steps[0] == 1


def test_a_stopped_run_does_not_go_on_with_more_epochs(
    tmp_path: Path, tiny_set: ImageSet, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its learning rates would be others than those of the runs beside it."""
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", lambda self: self.train_step() and self.save_state())
        ablate(STUDIES, CONFIG, SIZES, tiny_set, tmp_path, CPU)
    with pytest.raises(ValueError, match="base was begun with 1 epochs, at the rates of so many"):
        ablate(STUDIES, replace(CONFIG, epochs=2), SIZES, tiny_set, tmp_path, CPU)


@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_of_other_pictures_are_refused(
    tmp_path: Path, tiny_set: ImageSet, trained: list[str], split: str
) -> None:
    ablate(STUDIES, CONFIG, SIZES, tiny_set, tmp_path, CPU)
    before = (tmp_path / "ablation.csv").read_text()
    pictures = getattr(tiny_set, split)
    other = replace(tiny_set, **{split: replace(pictures, images=255 - pictures.images)})
    with pytest.raises(ValueError, match=r"have the data .*; give the same or choose another"):
        ablate(STUDIES, CONFIG, SIZES, other, tmp_path, CPU)
    assert (tmp_path / "ablation.csv").read_text() == before


@pytest.mark.parametrize(
    ("config", "sizes"),
    [({"epochs": 5}, {}), ({"train_images": 5}, {}), ({}, {"patch_size": 2}), ({}, {"depth": 2})],
)
def test_rows_of_another_recipe_are_refused(
    tmp_path: Path, tiny_set: ImageSet, trained: list[str], config: dict, sizes: dict
) -> None:
    ablate(STUDIES, CONFIG, SIZES, tiny_set, tmp_path, CPU)
    wanted = "recipe 'batch_size=4 epochs=1 crop_padding=1 image_size=8 .*' was asked for; give the"
    with pytest.raises(ValueError, match=wanted):
        ablate(STUDIES, replace(CONFIG, **config), SIZES | sizes, tiny_set, tmp_path, CPU)


def test_a_stopped_run_does_not_go_on_with_another_start(
    tmp_path: Path,
    tiny_set: ImageSet,
    trained: list[str],
    monkeypatch: pytest.MonkeyPatch,
    make_checkpoint: Make,
) -> None:
    path, begun = make_checkpoint(patch_size=4, depth=1), []

    def stop(self: Trainer) -> None:
        begun.append(self.step)
        self.train_step()
        self.save_state()

    monkeypatch.setattr(Trainer, "run", stop)
    asked = replace(CONFIG, start=str(path)), SIZES | {"mlp_dim": 24}, tiny_set, tmp_path, CPU
    for _ in range(2):
        ablate({"seed": ({"seed": 0},)}, *asked)
    _change(path)
    ablate({"seed": ({"seed": 0},)}, *asked)
    assert begun == [0, 1, 0]


def _change(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    with torch.no_grad():
        checkpoint.model.head.weight.add_(1)
    save_checkpoint(path, checkpoint)


@pytest.mark.parametrize("role", ["teacher", "start"])
def test_rows_with_another_model_in_the_same_file_are_refused(
    tmp_path: Path, tiny_set: ImageSet, trained: list[str], role: str, make_checkpoint: Make
) -> None:
    studies = {"seed": ({"seed": 0},)}
    path = make_checkpoint(patch_size=4, depth=1)
    config = replace(CONFIG, **{role: str(path)})
    sizes = SIZES | {"mlp_dim": 24}
    for _ in range(2):
        assert ablate(studies, config, sizes, tiny_set, tmp_path, CPU)
    _change(path)
    with pytest.raises(ValueError, match=f"have the {role} .*; give the same or choose another"):
        ablate(studies, config, sizes, tiny_set, tmp_path, CPU)


def test_an_impossible_variant() -> None:
    try_variants(STUDIES, CONFIG, SIZES)
    studies = {"patch size": ({"patch_size": 4}, {"patch_size": 3})}
    with pytest.raises(ValueError, match="patch_size 3 does not divide image_size 8"):
        try_variants(studies, CONFIG, SIZES)


def test_a_start_that_fits_some_variants_only(make_checkpoint: Make) -> None:
    config = replace(CONFIG, start=str(make_checkpoint(patch_size=4, depth=1)))
    sizes = SIZES | {"mlp_dim": 24}
    fitting = ({"depth": SIZES["depth"]},)
    try_variants({"depth": fitting}, config, sizes)
    with pytest.raises(ValueError, match=r"start is of a model with \{'depth'"):
        try_variants({"depth": (*fitting, {"depth": 9})}, config, sizes)


def test_one_process_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "world_size", lambda: 2)
    with pytest.raises(ValueError, match="--ablate was started in 2 processes; it needs one"):
        try_variants(STUDIES, CONFIG, SIZES)


@pytest.mark.parametrize(
    ("studies", "recipe"), [(ablation.STUDIES, "reference"), (ablation.PARTS, "best")]
)
def test_studies_vary_known_fields_and_contain_the_recipe(
    studies: ablation.Studies, recipe: str
) -> None:
    sizes = {"patch_size": 4, "depth": 6, "embed_dim": 256, "mlp_dim": 512}
    known = vars(RECIPES[recipe]) | sizes
    for variants in studies.values():
        assert all(changes.keys() <= known.keys() for changes in variants)
        assert any(changes.items() <= known.items() for changes in variants)


def test_the_accuracies_are_those_of_the_last_weights(
    tmp_path: Path, tiny_set: ImageSet, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[ViT, Split]] = []

    def count(model: ViT, split: Split, _: Preprocessing) -> torch.Tensor:
        asked.append((model, split))
        return torch.tensor([[4 * len(asked), 20 - 4 * len(asked)], [0, 0]])

    monkeypatch.setattr(ablation, "confusion_matrix", count)
    monkeypatch.setattr(training, "confusion_matrix", count)
    config = replace(CONFIG, epochs=2, test_every=1, ema_decay=0.5)
    ablate({"seed": ({"seed": 0},)}, config, SIZES, tiny_set, tmp_path, CPU)
    with (tmp_path / "ablation.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["test_accuracy"], row["train_accuracy"]) == ("0.4", "0.6"), "of three counts"
    model, split = asked[-1]
    kept = load_checkpoint(tmp_path / "runs/base/model.safetensors").model.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())
    seen, _ = random_split(tiny_set.train, len(tiny_set.test.labels))
    assert split.fingerprint() == seen.fingerprint()


def test_numbers_are_in_their_columns_and_bars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = {"study": "depth", "parameters": 7, "recipe": "", "data": "pets"}
    rows = [
        same | dict(zip(("value", "train_accuracy", "test_accuracy", "minutes"), row, strict=True))
        for row in [
            ("depth 4, seed 0", "0.9", 0.5, 3.25),
            ("depth 6, seed 0", 0.75, 0.25, 2),
            ("depth 4, seed 1", 0.8, 0.625, "4.25"),
            ("seed 1", 0.0, 1.0, 1),  # which is the setting
        ]
    ]
    ablation._write_markdown(tmp_path / "ablation.md", rows, "test accuracy")
    text, _, head, _, *lines = (tmp_path / "ablation.md").read_text().splitlines()
    assert text.startswith("The reference recipe with nothing changed, trained on pets; each row")
    assert head == "| study | setting | parameters | train accuracy | test accuracy | minutes |"
    assert lines == [
        "| depth | depth 4 | 7 | 90.0, 80.0 % | 50.0, 62.5 % | 3.8 |",
        "| depth | depth 6 | 7 | 75.0 % | 25.0 % | 2.0 |",
        "| depth | seed 1 | 7 | 0.0 % | 100.0 % | 1.0 |",
    ]
    drawn: list[object] = []
    monkeypatch.setattr(report, "plot_bars", lambda *parts: drawn.extend(parts))
    ablation._plot(tmp_path, "patch size", rows, "test accuracy")
    assert drawn == [
        tmp_path / "patch-size.png",
        "patch size",
        ["depth 4\n3.8 min", "depth 6\n2.0 min", "seed 1\n1.0 min"],
        {
            "test accuracy in %": [[50.0, 62.5], [25.0], [100.0]],
            "train accuracy in %": [[90.0, 80.0], [75.0], [0.0]],
        },
    ]
