"""Teachers: trained classifiers whose answers are half of a student's loss.

A teacher is `torchvision:<name>`, `transformers:<name or folder>`, `convnet:<path>` (see
`vit/convnet.py`) or the path of a checkpoint of train_vit.py. It has to know the classes of the
data by name; it may know more.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vit import convnet
from vit.checkpoint import Preprocessing, load_checkpoint
from vit.data import normalize, statistics
from vit.graphed import compiled


class Answer(NamedTuple):
    """Hold what a teacher says of a batch.

    Attributes:
        logits: float (B, K).
        maps: Features (B, C, h, w) for `vit/hints.py`, which only networks of `vit.convnet` have.
    """

    logits: Tensor
    maps: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Teacher:
    """Hold a trained classifier in eval mode and what it needs to answer for our classes.

    Attributes:
        ask: Maps normalised images (B, 3, side, side) to an answer.
        classes: The K class names.
        side: Side of the images, in pixels.
        preprocessing: Mean and standard deviation of the normalisation.
    """

    ask: Callable[[Tensor], Answer]
    classes: tuple[str, ...]
    side: int
    preprocessing: Preprocessing


def _from_torchvision(name: str, device: torch.device) -> Teacher:
    from torchvision.models import get_model, get_model_weights

    weights = get_model_weights(name).DEFAULT
    transform = weights.transforms()
    model = get_model(name, weights=weights).to(device).eval()
    return Teacher(
        lambda images: Answer(model(images)),
        tuple(weights.meta["categories"]),
        transform.crop_size[0],
        Preprocessing(tuple(transform.mean), tuple(transform.std)),
    )


def _from_transformers(name: str, device: torch.device) -> Teacher:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model: nn.Module = AutoModelForImageClassification.from_pretrained(name).to(device).eval()
    processor = AutoImageProcessor.from_pretrained(name)
    # Of one colour each. What a processor does to numbers is not all in its fields.
    shades = [Image.new("RGB", (32, 32), colour) for colour in ("black", "white", "red")]
    seen = torch.as_tensor(processor(shades, return_tensors="pt")["pixel_values"])
    return Teacher(
        lambda images: Answer(model(pixel_values=images).logits),
        tuple(label for _, label in sorted(model.config.id2label.items())),
        seen.shape[-1],
        _preprocessing(seen),
    )


def _preprocessing(seen: Tensor) -> Preprocessing:
    """Return by what pixels in [0, 1] become what a processor makes of them.

    Args:
        seen: What it makes of a black, a white and a red picture: float (3, 3, S, S).

    Raises:
        ValueError: If it has other shapes, tells black not from white or swaps colours.
    """
    if seen.ndim != 4 or seen.shape[:2] != (3, 3) or seen.shape[2] != seen.shape[3]:
        raise ValueError(f"its pictures are {tuple(seen.shape[1:])}, not (3, side, side)")
    black, white, red = seen[..., seen.shape[2] // 2, seen.shape[3] // 2].double()
    if (black == white).any():
        raise ValueError("it cannot tell black from white")
    if not torch.allclose(red, torch.stack((white[0], black[1], black[2]))):
        raise ValueError("it wants its colours in another order than red, green, blue")
    std = 1 / (white - black)
    return Preprocessing(tuple((-black * std).tolist()), tuple(std.tolist()))


def _from_checkpoint(path: str, device: torch.device) -> Teacher:
    checkpoint = load_checkpoint(Path(path))
    model = checkpoint.model.to(device)
    return Teacher(
        lambda images: Answer(model(images)),
        checkpoint.classes,
        model.config.image_size,
        checkpoint.preprocessing,
    )


def _from_convnet(path: str, device: torch.device) -> Teacher:
    if not Path(path).is_file():
        raise ValueError("there is no such file; `python -m vit.convnet` trains and writes one")
    trained = convnet.load(Path(path))
    model = convnet.with_maps(trained.model).to(device)
    if device.type == "cuda":
        model = compiled(model)

    def ask(images: Tensor) -> Answer:
        *maps, logits = model(images).values()
        return Answer(logits, tuple(maps))

    return Teacher(ask, trained.classes, trained.image_size, Preprocessing())


LIBRARIES = {
    "torchvision": _from_torchvision,
    "transformers": _from_transformers,
    "convnet": _from_convnet,
}


def fingerprint(name: str) -> str:
    """Return the SHA-256 of a model's file or folder; of a teacher from a hub the name."""
    path = Path(name.removeprefix("convnet:").removeprefix("transformers:"))
    files = sorted(path.rglob("*")) if name.startswith("transformers:") else [path]
    present = [file for file in files if file.is_file()]
    digest = hashlib.sha256()
    for file in present:
        digest.update(file.read_bytes())
    return digest.hexdigest() if present else name


def load_teacher(
    name: str, classes: tuple[str, ...], device: torch.device
) -> Callable[[Tensor], Answer]:
    """Return a function from uint8 images (B, 3, S, S) to the teacher's answer, logits in float32.

    Args:
        name: Library and model, or the path of a checkpoint, as at the top of this file.
        classes: Class names in label order.
        device: Where the images are.

    Raises:
        ValueError: If there is no such teacher or it does not know one of the classes.
    """
    library, _, model_name = name.partition(":")
    try:
        if library in LIBRARIES:
            teacher = LIBRARIES[library](model_name, device)
        else:
            teacher = _from_checkpoint(name, device)
    except Exception as error:  # where something is missing the libraries raise almost anything
        raise ValueError(f"teacher {name} cannot be loaded: {error}") from error
    if missing := [label for label in classes if label not in teacher.classes]:
        raise ValueError(f"teacher {name} does not know the classes {missing}; it must know all")
    places = [teacher.classes.index(label) for label in classes]
    ours = torch.tensor(places, dtype=torch.long, device=device)
    mean, std = statistics(teacher.preprocessing, device)

    @torch.no_grad()
    def answer(images: Tensor) -> Answer:
        inputs = normalize(images, mean, std)
        if images.shape[-1] != teacher.side:
            inputs = F.interpolate(inputs, size=(teacher.side,) * 2, mode="bicubic")
        logits, maps = teacher.ask(inputs)
        return Answer(logits[:, ours].float(), maps)

    return answer


def try_teacher(name: str) -> None:
    """Load a teacher and ask it once, which shows what is wrong with it.

    Raises:
        ValueError: As `load_teacher`, or if it cannot answer for square pictures in colour.
    """
    ask = load_teacher(name, (), torch.device("cpu"))
    try:
        ask(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    except Exception as error:  # of transformers, for another size, say
        raise ValueError(f"teacher {name} takes no square pictures in colour: {error}") from error
