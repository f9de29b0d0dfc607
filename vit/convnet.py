"""A convolutional network that learns CIFAR-10 in minutes on a GPU, to teach a Vision Transformer.

    python -m vit.convnet
    python train_vit.py --recipe taught --out runs/taught

Convolutions know from the start that neighbouring pixels belong together; a transformer has to
learn it from the 50,000 pictures. The network is torchvision's ResNet-18 (He et al., CVPR 2016,
https://arxiv.org/abs/1512.03385) with a first layer that keeps small pictures as large as they are.
It sees pictures under TrivialAugment and CutMix, because those are what a student asks about.
Seventy epochs in three minutes on an H100 that did other work, too, give 91.7 %, 91.5 % and 91.4 %
(CIFAR-10, JPEG re-encoded copy, all 10,000 test pictures, three seeds).
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
from torch.optim import SGD, Optimizer
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor
from tqdm import tqdm

from common.devices import DEVICES, find_device
from common.folders import make_writable
from common.precision import fast
from vit.augment import augment
from vit.checkpoint import Preprocessing, load_tensors, save_tensors
from vit.data import ImageSet, Split, hold_out, load_data, normalize, statistics
from vit.evaluation import predict
from vit.graphed import Graphed, compiled
from vit.optimizers import rate_on, scale_learning_rates
from vit.recipes import TrainConfig, rate_factor

# Pictures that are as hard as those about which a student will ask.
RECIPE = TrainConfig(lr=0.2, weight_decay=5e-4, warmup=0.05, batch_size=256, augment="trivial",
                     cutmix=0.5, test_every=10)  # fmt: skip
LOWEST = {"epochs": 1, "image_size": 8, "holdout": 0}


@dataclass(frozen=True)
class TrainedConvNet:
    """Hold a network in eval mode and what is to be known of it.

    Attributes:
        model: The network.
        classes: Class names in label order.
        image_size: Side of its pictures, in pixels.
        holdout: How many of the training pictures it has not seen.
    """

    model: nn.Module
    classes: tuple[str, ...]
    image_size: int
    holdout: int = 0


def build(num_classes: int) -> nn.Module:
    """Return an untrained network: normalised images (B, 3, S, S) to logits (B, K)."""
    model = resnet18(num_classes=num_classes, zero_init_residual=True)
    # Made for 224 pixels, it would begin with a quarter of the side.
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model.to(memory_format=torch.channels_last)


def with_maps(model: nn.Module) -> nn.Module:
    """Return a network in eval mode that also answers with features, from which a student learns.

    Normalised images (B, 3, S, S) to a dict, in this order: maps (B, 128, S/2, S/2), maps (B, 256,
    S/4, S/4), with the grid of patches of 4 pixels, maps (B, 512, S/8, S/8), and logits (B, K);
    where 2, 4 or 8 does not divide S, a map is one larger.
    """
    return create_feature_extractor(model.eval(), ["layer2", "layer3", "layer4", "fc"])


def _build_optimizer(model: nn.Module, device: torch.device) -> Optimizer:
    lr, decay = rate_on(device, RECIPE.lr), RECIPE.weight_decay
    return SGD(model.parameters(), lr, momentum=0.9, weight_decay=decay, nesterov=True, fused=True)


def _make_step(
    model: nn.Module, split: Split, classes: int, optimizer: Optimizer
) -> Callable[[Tensor], Tensor]:
    """Return a function that learns from the pictures it is given the places of, int64 (B,)."""
    device = split.images.device
    mean, std = statistics(Preprocessing(), device)
    on_gpu = device.type == "cuda"
    network, change = (compiled(model), compiled(augment)) if on_gpu else (model, augment)

    def step(chosen: Tensor) -> Tensor:
        targets = F.one_hot(split.labels[chosen], classes).float()
        images, targets = change(split.images[chosen], targets, RECIPE, plain=False)
        optimizer.zero_grad()
        with fast(str(device)):
            logits = network(normalize(images, mean, std))
        loss = F.cross_entropy(logits.float(), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Graphed(step) if on_gpu else step


def train(
    data: ImageSet, epochs: int, device: torch.device, path: Path, holdout: int = 0
) -> nn.Module:
    """Train on `data` and save; every ten epochs print the accuracy and save what there is.

    Args:
        data: The pictures to train and to test on.
        epochs: Passes over the training pictures.
        device: Where to train.
        path: Where the network is saved; until the end it is in a file beside it (`unfinished`).
        holdout: How many training pictures are the test split of `data`, instead of its own.

    Raises:
        ValueError: If there is one picture only.
    """
    if len(data.train.labels) < 2:
        raise ValueError("there is 1 training picture; at least 2 are needed")
    model = build(len(data.classes)).to(device).train()
    split, test_split = data.train.to(device), data.test.to(device)
    optimizer = _build_optimizer(model, device)
    step = _make_step(model, split, len(data.classes), optimizer)
    size = min(RECIPE.batch_size, len(split.labels))
    name = "held-out accuracy" if holdout else "test accuracy"
    step_number, steps = 0, epochs * (len(split.labels) // size)
    with tqdm(total=steps, unit="step") as bar:
        for epoch in range(1, epochs + 1):
            for chosen in torch.randperm(len(split.labels), device=device).split(size):
                if len(chosen) < size:
                    break
                scale_learning_rates([optimizer], rate_factor(step_number, steps, RECIPE))
                step(chosen)
                step_number += 1  # a bar that is switched off does not count
                bar.update()
            if epoch % RECIPE.test_every == 0 or epoch == epochs:
                right = predict(model, test_split, Preprocessing()) == test_split.labels
                bar.write(f"epoch {epoch:3d}  {name}: {100 * right.float().mean():.2f} %")
                side = data.train.images.shape[-1]
                save(unfinished(path), TrainedConvNet(model, data.classes, side, holdout))
    unfinished(path).replace(path)
    return model.eval()


def unfinished(path: Path) -> Path:
    """Return where a network lies until its training has ended, so that none is taken for it."""
    return path.with_name(f"{path.name}.unfinished")


def save(path: Path, trained: TrainedConvNet) -> None:
    """Write the network and what it needs to be used as one safetensors file."""
    names = ("classes", "image_size", "holdout")
    facts = {name: getattr(trained, name) for name in names}
    metadata = {name: json.dumps(value) for name, value in facts.items()}
    save_tensors(path, trained.model.state_dict(), metadata)


def load(path: Path) -> TrainedConvNet:
    """Read a file of `save`.

    Raises:
        ValueError: If there is none, or it holds something else.
    """
    tensors, facts = load_tensors(path)
    try:
        model = build(len(facts["classes"]))
        model.load_state_dict(tensors)
        return TrainedConvNet(
            model.eval(), tuple(facts["classes"]), facts["image_size"], facts["holdout"]
        )
    except (KeyError, RuntimeError) as error:  # whose text may name hundreds of tensors
        raise ValueError(f"{path} is not a network of vit.convnet") from error


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description="Train a convolutional teacher.")
    parser.add_argument("--data", type=Path, help="as for train_vit.py; default: download CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("runs/teacher.safetensors"),
                        help="until the end FILE.unfinished; default: %(default)s")  # fmt: skip
    parser.add_argument("--epochs", type=int, default=70, help="default: %(default)s")
    parser.add_argument("--image-size", type=int, default=32, help="pixels; default: %(default)s")
    parser.add_argument("--holdout", type=int, default=0, help="training pictures to test on "
                        "instead, the same as those of train_vit.py")  # fmt: skip
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu",
                        help=f"{DEVICES}; default: %(default)s")  # fmt: skip
    args = parser.parse_args(argv)
    device = torch.device(find_device(args.device))
    for name, lowest in LOWEST.items():
        if (given := getattr(args, name)) < lowest:
            raise ValueError(f"{name} is {given}; it must be at least {lowest}")
    if args.out.exists():
        raise ValueError(f"{args.out} is there already; choose another --out")
    make_writable(args.out.parent)
    torch.manual_seed(0)
    data = load_data(args.data, args.image_size)
    data = hold_out(data, args.holdout) if args.holdout else data
    train(data, args.epochs, device, args.out, args.holdout)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a file on Windows takes few letters
    try:
        main()
    except ValueError as error:
        sys.exit(f"vit.convnet: {error}")
    except KeyboardInterrupt:
        sys.exit("vit.convnet: stopped")
