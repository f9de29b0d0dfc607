"""Short runs that ask what a part of a recipe is worth: `train_vit.py --ablate`.

Every run differs from the recipe of the command line in what a study says and in nothing else; one
setting may have several, of other seeds. A finished run is a row of `ablation.csv` and is not
repeated; an unfinished one goes on. Rows of another recipe, of other pictures, or with another
teacher or start are never among them.
"""

import csv
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from statistics import mean

import torch

from vit import report
from vit.checkpoint import load_checkpoint
from vit.data import ImageSet, random_split
from vit.distributed import world_size
from vit.evaluation import accuracy, confusion_matrix
from vit.model import ViT
from vit.recipes import TrainConfig, build_model_config
from vit.start import start_from
from vit.teacher import fingerprint
from vit.training import Trainer

Changes = dict[str, object]
Row = dict[str, object]
Studies = dict[str, tuple[Changes, ...]]
# What makes runs of the reference recipe short: each sees few pictures, and those often.
SHORT: Changes = {
    "patch_size": 8,
    "train_images": 5000,
    "batch_size": 64,
    "epochs": 30,
    "test_every": 30,
    "precision": "bf16",
}


def _repeat(seeds: int, *variants: Changes) -> tuple[Changes, ...]:
    return tuple(changes | {"seed": seed} for changes in variants for seed in range(seeds))


# Repeated, as seeds alone differ by some points; the more often, the smaller the differences.
STUDIES: Studies = {
    "patch size": _repeat(2, {"patch_size": 4}, {"patch_size": 8}, {"patch_size": 16}),
    "depth": _repeat(3, {"depth": 4}, {"depth": 6}, {"depth": 8}, {"depth": 10}),
    "width": _repeat(3, *({"embed_dim": width, "mlp_dim": 2 * width} for width in (128, 256, 384))),
    "augmentation": _repeat(2, {"augment": "crop_flip"}, {"augment": "none"}),
    "optimizer": _repeat(2, {"optimizer": "adamw"}, {"optimizer": "adam"}),
}
# Of the recipe `best`: all of it, and each part taken away.
PARTS: Studies = {
    "parts of best": (
        {"seed": 0},
        {"augment": "crop_flip"},
        {"cutmix": 0.0},
        {"pool": "cls"},
        {"optimizer": "adamw"},
        {"seed": 1},
    )
}


def vary(
    config: TrainConfig, sizes: dict[str, int], changes: Changes
) -> tuple[TrainConfig, dict[str, int]]:
    """Return a recipe and the sizes of its model with `changes`, which are fields of either."""
    sizes = sizes | {k: v for k, v in changes.items() if not hasattr(config, k)}
    return replace(config, **{k: v for k, v in changes.items() if hasattr(config, k)}), sizes


def try_variants(studies: Studies, config: TrainConfig, sizes: dict[str, int]) -> None:
    """See whether all variants of `studies` are possible, before pictures are read.

    Raises:
        ValueError: If one is not, or under torchrun.
    """
    if world_size() > 1:
        raise ValueError(f"--ablate was started in {world_size()} processes; it needs one")
    start = load_checkpoint(Path(config.start)) if config.start else None
    for changes in chain.from_iterable(studies.values()):
        varied, varied_sizes = vary(config, sizes, changes)
        model_config = build_model_config(varied, **varied_sizes)
        if start:
            start_from(ViT(model_config), start, classes=())


def ablate(
    studies: Studies,
    config: TrainConfig,
    sizes: dict[str, int],
    data: ImageSet,
    folder: Path,
    device: torch.device,
) -> bool:
    """Train every variant of `studies` that has no row yet; write the table and the plots.

    Args:
        studies: What is varied together, by name: STUDIES, or PARTS for the recipe `best`.
        config: The recipe that is varied.
        sizes: Fields of ViTConfig other than its defaults.
        data: The pictures.
        folder: Where `ablation.csv`, `ablation.md`, a PNG for each study and the runs go.
        device: Where to train.

    Returns:
        Whether all have been trained; else one was stopped.

    Raises:
        ValueError: If the rows in the folder vary another recipe, are of other pictures, or stand
            on another teacher or start; or if a run was begun with fewer epochs.
    """
    models = {role: fingerprint(name) for role, name in config.models.items()}
    # Nor does a run that was stopped go on with others.
    runs = folder / "-".join(["runs", *(sha[:8] for sha in models.values())])
    same = {
        "recipe": _describe(config, sizes),
        "data": f"{data.name}, SHA-256 {data.train.fingerprint()[:16]} and "
        f"{data.test.fingerprint()[:16]}",
    } | models
    rows = _read_rows(folder / "ablation.csv", same)
    wanted = _list_runs(studies)
    done = {(row["study"], row["value"]) for row in rows}
    missing = [run for run in wanted if run[:2] not in done]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} runs are in {folder} already")
    for study, value, changes in missing:
        print(f"{study}: {value}")
        numbers = _train(config, sizes, changes, data, runs, device)
        if numbers is None:
            return False
        rows.append({"study": study, "value": value} | numbers | same)
        report.write_csv(folder / "ablation.csv", rows)
    # The file may have runs of an older version's studies, too.
    asked = {run[:2] for run in wanted}
    rows = [row for row in rows if (row["study"], row["value"]) in asked]
    _write_markdown(folder / "ablation.md", rows, config.accuracy_name)
    for study in studies:
        of_study = [row for row in rows if row["study"] == study]
        _plot(folder, study, of_study, config.accuracy_name)
    return True


def _list_runs(studies: Studies) -> list[tuple[str, str, Changes]]:
    """Return the study's name, what is changed in words, and the change, for every run."""
    return [
        (study, ", ".join(f"{name} {setting}" for name, setting in changes.items()), changes)
        for study, variants in studies.items()
        for changes in variants
    ]


def _settings(config: TrainConfig, sizes: dict[str, int]) -> dict[str, object]:
    return asdict(config) | asdict(build_model_config(config, **sizes))


def _describe(config: TrainConfig, sizes: dict[str, int]) -> str:
    """Say in which flags a recipe differs from the reference one."""
    return " ".join(_changed(_settings(TrainConfig(), {}), _settings(config, sizes)))


def _changed(before: dict[str, object], after: dict[str, object]) -> list[str]:
    return [f"{name}={after[name]}" for name in before if after[name] != before[name]]


def _read_rows(path: Path, same: dict[str, str]) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows: list[Row] = list(csv.DictReader(file))
    for key, wanted in same.items():
        if others := {row.get(key) for row in rows} - {wanted}:
            raise ValueError(
                f"the runs in {path} have the {key} {others.pop()!r}, and {wanted!r} was asked "
                "for; give the same or choose another --out"
            )
    return rows


def _train(
    config: TrainConfig,
    sizes: dict[str, int],
    changes: Changes,
    data: ImageSet,
    folder: Path,
    device: torch.device,
) -> Row | None:
    """Return the numbers of one run, or None if it was stopped before its end."""
    before = _settings(config, sizes)
    config, sizes = vary(config, sizes, changes)
    # Studies that share a setting share its run.
    name = "-".join(_changed(before, _settings(config, sizes))) or "base"
    model_config = build_model_config(config, **sizes, num_classes=len(data.classes))
    trainer = Trainer(config, model_config, data, folder / name, device)
    if (trainer.folder / "state.safetensors").exists():
        trainer.resume()
        if trainer.lengthened:
            raise ValueError(
                f"the run in {trainer.folder} was begun with {trainer.lengthened[0]['epochs']} "
                "epochs, at the rates of so many; delete it or choose another --out"
            )
    if not trainer.done and not trainer.run():
        print(trainer.describe_stop())
        return None
    seen, _ = random_split(trainer.train_split, len(trainer.test_split.labels))
    confusion = confusion_matrix(trainer.kept_model, seen, trainer.preprocessing)
    return {
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "train_accuracy": accuracy(confusion),
        "test_accuracy": trainer.history[-1]["test_accuracy"],
        "minutes": trainer.history[-1]["train_minutes"],
    }


def _by_setting(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Return the rows by study and setting; those of one setting differ in their seed."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        setting, _, _ = str(row["value"]).partition(", seed ")
        groups.setdefault((str(row["study"]), setting), []).append(row)
    return groups


def _percent(rows: list[Row], name: str) -> list[float]:
    return [100 * float(str(row[name])) for row in rows]


def _minutes(rows: list[Row]) -> str:
    return f"{mean(float(str(row['minutes'])) for row in rows):.1f}"


def _write_markdown(path: Path, rows: list[Row], accuracy_name: str) -> None:
    lines = [
        f"The reference recipe with {rows[0]['recipe'] or 'nothing changed'}, trained on "
        f"{rows[0]['data']}; each row changes what its setting says; accuracy with each seed:",
        "",
        f"| study | setting | parameters | train accuracy | {accuracy_name} | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for (study, setting), runs in _by_setting(rows).items():
        train, test = (
            ", ".join(f"{value:.1f}" for value in _percent(runs, f"{part}_accuracy"))
            for part in ("train", "test")
        )
        lines.append(
            f"| {study} | {setting} | {runs[0]['parameters']} | {train} % | {test} % "
            f"| {_minutes(runs)} |"
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _plot(folder: Path, study: str, rows: list[Row], accuracy_name: str) -> None:
    settings = _by_setting(rows)
    named = {"test_accuracy": accuracy_name, "train_accuracy": "train accuracy"}
    bars = {
        f"{words} in %": [_percent(runs, name) for runs in settings.values()]
        for name, words in named.items()
    }
    names = [f"{setting}\n{_minutes(runs)} min" for (_, setting), runs in settings.items()]
    report.plot_bars(folder / f"{study.replace(' ', '-')}.png", study, names, bars)
