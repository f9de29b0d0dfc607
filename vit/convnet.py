"""A convolutional network that learns CIFAR-10 in a minute on a GPU, to teach a Vision Transformer.

    python -m vit.convnet --data cifar10.tar.xz
    python train_vit.py --recipe best --teacher convnet:runs/teacher.safetensors ...

Convolutions know from the start that neighbouring pixels belong together; a transformer has to
learn it from the 50,000 pictures. Forty epochs in 77 seconds on an H100 that did other work, too,
give 90.3 % (CIFAR-10, JPEG re-encoded copy, all 10,000 test pictures, one run). It sees pictures
under TrivialAugment and CutMix, because those are what a student asks about. The layers and the
whitening start are those of Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024
(https://arxiv.org/abs/2404.00498).
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from tqdm import tqdm

from vit.augment import augment
from vit.checkpoint import Preprocessing, load_tensors, save_tensors
from vit.data import ImageSet, Split, load_image_folder, normalize, statistics
from vit.evaluation import predict
from vit.graphed import Graphed
from vit.muon import Muon
from vit.optimizers import adam_options, rate_on, scale_learning_rates
from vit.recipes import TrainConfig, learning_rate

WIDTHS = (128, 384, 512)
SMALLEST_SIDE = 9  # three times halved it is one pixel
# Pictures that are as hard as those about which a student will ask.
RECIPE = TrainConfig(
    lr=2e-3, muon_lr=0.05, schedule="linear", batch_size=256, augment="trivial", cutmix=0.5
)
# A long memory does not pay in few steps: two epochs of a smaller network gave 83.3 %, with .95 and
# a rate of .015 81.7 % (CIFAR-10, JPEG re-encoded copy, one run each).
MOMENTUM = 0.6
PRECISION = torch.bfloat16


@dataclass(frozen=True)
class TrainedConvNet:
    """Hold a network in eval mode, its class names, and the side of its pictures in pixels."""

    model: "ConvNet"
    classes: tuple[str, ...]
    image_size: int


def _group(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(outputs),
        nn.GELU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.GELU(),
    )


class ConvNet(nn.Module):
    """Three groups of two convolutions behind a fixed layer that whitens patches of 2 x 2."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2).requires_grad_(False)
        self.groups = nn.Sequential(
            *(_group(*pair) for pair in zip((24, *WIDTHS), WIDTHS, strict=False))
        )
        self.head = nn.Linear(WIDTHS[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) for normalised images (B, 3, S, S)."""
        images = images.contiguous(memory_format=torch.channels_last)
        features = self.groups(F.gelu(self.whiten(images)))
        return self.head(features.amax((2, 3)))

    @torch.no_grad()
    def start_whitening(self, images: Tensor) -> None:
        """Fix the first layer: patches of `images` (N, 3, S, S) leave it uncorrelated.

        Its filters are the eigenvectors of the patches' covariance, and their negatives.
        """
        patches = F.unfold(images, 2).transpose(1, 2).flatten(0, 1)  # (N * places, 12)
        values, vectors = torch.linalg.eigh(patches.T.cov())
        filters = (vectors / (values + 5e-4).sqrt()).T.view(-1, 3, 2, 2)
        self.whiten.weight.copy_(torch.cat((filters, -filters)))
        self.whiten.bias.zero_()


def begin(data: ImageSet) -> ConvNet:
    """Return an untrained network for `data`.

    Raises:
        ValueError: If the pictures are too small.
    """
    if (side := data.train.images.shape[-1]) < SMALLEST_SIDE:
        raise ValueError(f"image size is {side}; choose {SMALLEST_SIDE} pixels or more")
    model = ConvNet(len(data.classes))
    mean, std = statistics(Preprocessing(), data.train.images.device)
    model.start_whitening(normalize(data.train.images[::10], mean, std))
    return model


def _build_optimizers(model: ConvNet, device: torch.device) -> list[Optimizer]:
    filters = [p for p in model.groups.parameters() if p.ndim == 4]
    others = [p for p in model.parameters() if p.ndim < 4 and p.requires_grad]
    muon_lr, lr = (rate_on(device, rate) for rate in (RECIPE.muon_lr, RECIPE.lr))
    return [
        Muon([{"params": filters}], muon_lr, MOMENTUM, 0.1, PRECISION),
        AdamW(others, lr, weight_decay=0.0, **adam_options(device)),
    ]


def _make_step(
    model: ConvNet, split: Split, optimizers: list[Optimizer]
) -> Callable[[Tensor], Tensor]:
    """Return a function that learns from the pictures it is given the places of, int64 (B,)."""
    device = split.images.device
    mean, std = statistics(Preprocessing(), device)

    def step(chosen: Tensor) -> Tensor:
        targets = F.one_hot(split.labels[chosen], model.head.out_features).float()
        images, targets = augment(split.images[chosen], targets, RECIPE, plain=False)
        for optimizer in optimizers:
            optimizer.zero_grad()
        with torch.autocast(device.type, PRECISION):
            logits = model(normalize(images, mean, std))
        loss = F.cross_entropy(logits.float(), targets)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return loss.detach()

    return Graphed(step) if device.type == "cuda" else step


def train(data: ImageSet, epochs: int, device: torch.device, path: Path) -> ConvNet:
    """Train on `data`; after each epoch print the test accuracy and save.

    Raises:
        ValueError: As `begin` does.
    """
    model = begin(data).to(device).train()
    split, test_split = data.train.to(device), data.test.to(device)
    optimizers = _build_optimizers(model, device)
    step = _make_step(model, split, optimizers)
    size = min(RECIPE.batch_size, len(split.labels))
    steps = epochs * (len(split.labels) // size)
    with tqdm(total=steps, unit="step") as bar:
        for _ in range(epochs):
            for chosen in torch.randperm(len(split.labels), device=device).split(size):
                if len(chosen) < size:
                    break
                scale_learning_rates(optimizers, learning_rate(bar.n, steps, RECIPE))
                step(chosen)
                bar.update()
            right = predict(model, test_split, Preprocessing()) == test_split.labels
            bar.write(f"test accuracy: {100 * right.float().mean():.2f} %")
            save(path, TrainedConvNet(model, data.classes, data.train.images.shape[-1]))
    return model.eval()


def save(path: Path, trained: TrainedConvNet) -> None:
    """Write the network and what it needs to be used as one safetensors file."""
    facts = {"classes": trained.classes, "image_size": trained.image_size}
    metadata = {name: json.dumps(value) for name, value in facts.items()}
    save_tensors(path, trained.model.state_dict(), metadata)


def load(path: Path) -> TrainedConvNet:
    """Read a file of `save`.

    Raises:
        ValueError: If there is none, or it holds something else.
    """
    tensors, facts = load_tensors(path)
    try:
        model = ConvNet(len(facts["classes"]))
        model.load_state_dict(tensors)
        return TrainedConvNet(model.eval(), tuple(facts["classes"]), facts["image_size"])
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is not a network of vit.convnet ({error})") from error


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description="Train a convolutional teacher.")
    parser.add_argument("--data", type=Path, required=True, help="as for train_vit.py")
    parser.add_argument("--out", type=Path, default=Path("runs/teacher.safetensors"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    data = load_image_folder(args.data, args.image_size)
    train(data, args.epochs, torch.device(args.device), args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"vit.convnet: {error}")
