"""Train the Vision Transformer of `vit/model.py` on CIFAR-10 or on your own class folders.

    python train_vit.py                                   # downloads CIFAR-10, reference recipe
    python train_vit.py --recipe short --data cifar10.tar.xz --out runs/short
    python train_vit.py --recipe short --data cifar10.tar.xz --out runs/short --resume

A flag given beside --recipe replaces that value of the recipe. Ctrl-C saves; --resume goes on.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import torch

from vit.data import download_cifar10, load_image_folder
from vit.model import ViTConfig
from vit.training import RECIPES, TrainConfig, Trainer

MODEL_FLAGS = ("image_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_dim")


def _add_fields(group: argparse._ArgumentGroup, config: object, names: list[str]) -> None:
    for name in names:
        kind = type(getattr(config, name))
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=kind.__name__)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line: the files, the recipe, and a flag per field of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder or archive with train|test/<class>/*")
    parser.add_argument("--out", type=Path, default=Path("runs/vit"), help="default: %(default)s")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--recipe", choices=RECIPES, default="reference", help="%(default)s")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    recipe = parser.add_argument_group("recipe (vit/training.py explains each field)")
    _add_fields(recipe, TrainConfig(), [field.name for field in dataclasses.fields(TrainConfig)])
    _add_fields(parser.add_argument_group("model"), ViTConfig(), list(MODEL_FLAGS))
    return parser.parse_args(argv)


def _given(args: argparse.Namespace, names: list[str]) -> dict[str, object]:
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says."""
    args = parse_args(argv)
    fields = [field.name for field in dataclasses.fields(TrainConfig)]
    config = dataclasses.replace(RECIPES[args.recipe], **_given(args, fields))
    sizes = ViTConfig(dropout=config.dropout, **_given(args, list(MODEL_FLAGS)))
    data = (
        load_image_folder(args.data, sizes.image_size)
        if args.data
        else download_cifar10(Path("data"))
    )
    model_config = dataclasses.replace(sizes, num_classes=len(data.classes))
    trainer = Trainer(config, model_config, data, args.out, torch.device(args.device))
    if args.resume:
        trainer.resume()
    trainer.run()


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"train_vit.py: {error}")
