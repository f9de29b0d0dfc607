"""Which models that a run stands on may have learnt the pictures that it holds out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vit.checkpoint import load_tensors
from vit.recipes import TrainConfig


def describe_leaks(config: TrainConfig) -> list[str]:
    """Warn of a teacher or a start that may have learnt pictures which this run holds out.

    Pictures are always held out in the same order, so who held out as many has seen none of them.
    Of models from elsewhere it is not known, and nothing is said.
    """
    roles = {role: name.removeprefix("convnet:") for role, name in config.models.items()}
    counts = {role: _holdout(Path(path)) for role, path in roles.items()}
    return [
        f"Warning: the {role} {roles[role]} held out {count:,} training pictures and this run "
        f"{config.holdout:,}; if they are of the same data, the held-out accuracy is too high."
        for role, count in counts.items()
        if count is not None and count < config.holdout
    ]


def _holdout(path: Path) -> int | None:
    """Return how many pictures a model of this program has never seen; None if it is of another."""
    try:
        _, facts = load_tensors(path)
    except ValueError:
        return None
    return min(_counts(facts.get("recipe") or facts)) if "classes" in facts else None


def _counts(recipe: dict[str, Any] | None) -> Iterator[int]:
    """Yield how many pictures a run held out, and those that it started from."""
    while recipe:
        yield int(recipe.get("holdout", 0))
        recipe = (recipe.get("started_from") or {}).get("recipe")
