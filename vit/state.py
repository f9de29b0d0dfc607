"""The tensors of a stopped run, by names, and whether a run may go on from them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from vit.checkpoint import load_tensors
from vit.model import SIZES, ViTConfig
from vit.recipes import TrainConfig


def pack(modules: Mapping[str, nn.Module], optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """Return the tensors of modules and of the optimisers' moments, named by whose they are."""
    tensors = {
        f"{owner}.{name}": tensor
        for owner, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    for i, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{index}.{name}": t for name, t in state.items()}
    return tensors


def unpack(
    tensors: Mapping[str, Tensor],
    modules: Mapping[str, nn.Module],
    optimizers: Sequence[Optimizer],
) -> None:
    """Give modules and optimisers the tensors that `pack` returned."""
    for owner, module in modules.items():
        module.load_state_dict(_under(f"{owner}.", tensors))
    for i, optimizer in enumerate(optimizers):
        states: dict[int, dict[str, Tensor]] = {}
        for key, tensor in _under(f"optimizer.{i}.", tensors).items():
            index, name = key.split(".", 1)
            states.setdefault(int(index), {})[name] = tensor
        optimizer.load_state_dict(optimizer.state_dict() | {"state": states})


@contextmanager
def complete(path: Path) -> Iterator[None]:
    """Say of a state in which something is missing that it is not one of ours.

    Raises:
        ValueError: In the place of a KeyError.
    """
    try:
        yield
    except KeyError as error:
        raise ValueError(
            f"{path} is of another program or version, there is no {error} in it; begin a new "
            "run with another --out"
        ) from error


def read_run(path: Path) -> tuple[TrainConfig, dict[str, int]]:
    """Return the recipe of a stopped run and the sizes of its model.

    Raises:
        ValueError: If it is no state of ours.
    """
    _, facts = load_tensors(path)
    with complete(path):
        ran = _ran(facts)
    config = TrainConfig(**{name: ran[name] for name in asdict(TrainConfig())})
    return config, {name: ran[name] for name in SIZES}


def check_run(
    path: Path,
    facts: Mapping[str, Any],
    config: TrainConfig,
    model: ViTConfig,
    sources: Mapping[str, str],
) -> int:
    """Return the number of epochs that the run of a state was planned with.

    Args:
        path: The state's file, for the message.
        facts: Its metadata, with the fields of both configs as "train_config" and "config", and
            "sources".
        config: The recipe that is to go on; it may have more epochs.
        model: Its architecture.
        sources: What the run learns from, in words, with the fingerprint of each.

    Raises:
        ValueError: If recipe, architecture or sources differ, or fewer epochs are asked for.
        KeyError: If the facts lack one of these, as those of another program or version do.
    """
    ran = _ran(facts)
    check_recipe(path, ran, config, model)
    before = facts["sources"]  # from before there were those of the test: not known
    if changed := [name for name in sources if before.get(name, sources[name]) != sources[name]]:
        raise ValueError(
            f"{path} was trained with other sources ({', '.join(changed)}); resume with the same, "
            "or begin a new run with --start"
        )
    return ran["epochs"]


def check_recipe(path: Path, ran: Mapping[str, Any], config: TrainConfig, model: ViTConfig) -> None:
    """Refuse to go on otherwise than the run of the state at `path`, whose fields `ran` are.

    Raises:
        ValueError: If recipe or architecture differ, or fewer epochs are asked for.
    """
    given = asdict(config) | asdict(model)
    # Other classes are other pictures, and a teacher may have moved: of their sources more is said.
    free = ("epochs", "num_classes", "teacher")
    other = {k: ran[k] for k in given if k not in free and ran[k] != given[k]}
    # No flag: it comes with a teacher.
    if other.pop("distilled", None) is not None and ran["teacher"] != given["teacher"]:
        other["teacher"] = ran["teacher"]
    if other:
        raise ValueError(f"{path} was trained with {other}; resume without the flags that differ")
    check_epochs(path, ran["epochs"], config.epochs)


def check_epochs(path: Path, ran: int, given: int) -> None:
    """Refuse to go on to fewer epochs than the run of the state at `path` was planned with.

    Raises:
        ValueError: If they are fewer.
    """
    if given < ran:
        raise ValueError(
            f"{path} is of a run of {ran} epochs; to resume give as many or more, not {given}"
        )


def _ran(facts: Mapping[str, Any]) -> dict[str, Any]:
    # A run from before a field was added did what the default says now.
    return asdict(TrainConfig()) | asdict(ViTConfig()) | facts["train_config"] | facts["config"]


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
