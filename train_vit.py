"""Train the Vision Transformer of `vit/model.py` on CIFAR-10 or on your own class folders.

    python train_vit.py                                   # downloads CIFAR-10, reference recipe
    python train_vit.py --data pets.zip --image-size 64   # or many pictures of your own; few:
    python train_vit.py --data pets.zip --recipe fine --start assets/vit-cifar10.safetensors
    python train_vit.py --recipe best --out runs/best
    python train_vit.py --resume --out runs/best          # the recipe is in the folder
    python -m vit.convnet                                 # the teacher of the next recipe
    python train_vit.py --recipe taught --out runs/taught
    python train_vit.py --recipe coarse --patch-size 8 --out runs/coarse
    python train_vit.py --recipe fine --start runs/coarse/model.safetensors --out runs/fine
    torchrun --nproc_per_node 2 train_vit.py --recipe best --out runs/two
    python train_vit.py --evaluate runs/best/model.safetensors
    python train_vit.py --evaluate runs/best/model.safetensors --save
    python train_vit.py --export onnx --checkpoint runs/best/model.safetensors --out best.onnx
    python train_vit.py --ablate                          # short runs: what each part is worth

A flag given beside --recipe replaces that value of the recipe. Ctrl-C saves; --resume goes on, as
the run in --out was begun: only --data and --device are to be given again.
"""

import argparse
import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from common.devices import DEVICES, find_device
from common.exhausted import out_of_memory
from common.folders import make_writable
from vit.ablation import PARTS, SHORT, STUDIES, ablate, try_variants, vary
from vit.checkpoint import load_checkpoint, save_checkpoint
from vit.data import CIFAR_CLASSES, load_data
from vit.distributed import process_group, rank, wait_for_all
from vit.evaluation import accuracy, confusion_matrix
from vit.model import SIZES, ViT, ViTConfig
from vit.recipes import RECIPES, TrainConfig, build_model_config
from vit.start import start_from
from vit.state import check_epochs, check_recipe, read_run
from vit.teacher import try_teacher
from vit.training import Trainer

SHIPPED = Path(__file__).parent / "assets" / "vit-cifar10.safetensors"
RECIPE_FLAGS = [field.name for field in dataclasses.fields(TrainConfig)]
MODEL_FLAGS = [name for name in SIZES if name != "num_classes"]  # which the data say
# What each of these actions obeys; all others train.
OBEYED = {"evaluate": ("checkpoint", "data", "device", "save"), "export": ("checkpoint", "out")}
TRAINING_OBEYS = ("data", "device", "out", "recipe", *RECIPE_FLAGS, *MODEL_FLAGS)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _add_fields(group: argparse._ArgumentGroup, config: object, names: list[str]) -> None:
    for name in names:
        kind = type(getattr(config, name))
        group.add_argument(_flag(name), type=kind, metavar=kind.__name__)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line: what to do, the files, the recipe, and a flag per field of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--resume", action="store_true", help="go on with the run in --out")
    action.add_argument("--evaluate", type=Path, nargs="?", const=SHIPPED, metavar="CHECKPOINT",
                        help="print its accuracy on --data; default: --checkpoint")  # fmt: skip
    action.add_argument("--export", choices=["onnx"], help="write --checkpoint to --out as ONNX")
    action.add_argument("--ablate", action="store_true", help="ask what each part of "
                        "the recipe is worth; short runs without --recipe")  # fmt: skip
    parser.add_argument("--data", type=Path, help="folder or archive with train|test/<class>/* or "
                        "<class>/*; default: download CIFAR-10")  # fmt: skip
    parser.add_argument("--out", type=Path, help="default: runs/vit; with --ablate runs/ablation;"
                        " with --export CHECKPOINT.onnx here")  # fmt: skip
    parser.add_argument("--save", action="store_true", default=None, help="with --evaluate: keep "
                        "the result in CHECKPOINT, where the page finds it")  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, help="for --export, and for --evaluate without "
                        "one; default: the shipped one")  # fmt: skip
    parser.add_argument("--recipe", choices=RECIPES, help="default: reference (with --ablate a "
                        "short form of it); with --resume that of the run")  # fmt: skip
    parser.add_argument("--device", help=f"{DEVICES}; default: cuda where there is one, else cpu")
    recipe = parser.add_argument_group("recipe (vit/recipes.py explains each field)")
    _add_fields(recipe, TrainConfig(), RECIPE_FLAGS)
    _add_fields(parser.add_argument_group("model"), ViTConfig(), MODEL_FLAGS)
    return parser.parse_args(argv)


def _given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def check_flags(args: argparse.Namespace) -> None:
    """Refuse flags that the action would not obey; fields of a recipe may be idle in others.

    Raises:
        ValueError: If there is one.
    """
    action = next((name for name in OBEYED if getattr(args, name)), "")
    obeyed = OBEYED.get(action, TRAINING_OBEYS)
    given = _given(args, ["checkpoint", "save", *TRAINING_OBEYS])
    if ignored := [_flag(name) for name in given if name not in obeyed]:
        where = f"beside {_flag(action)}" if action else "in training"
        raise ValueError(f"{', '.join(ignored)} would not be obeyed {where}; leave that out")
    if args.checkpoint and args.evaluate not in (None, SHIPPED):
        raise ValueError("--evaluate CHECKPOINT and --checkpoint both say which; give one of them")


def choose_device(name: str | None) -> torch.device:
    """Return the device of that name; without one, CUDA if there is any, else the CPU.

    Raises:
        ValueError: If it is not there.
    """
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(find_device(name or usual))


def choose_recipe(args: argparse.Namespace, folder: Path) -> tuple[TrainConfig, dict[str, int]]:
    """Return what the flags say, and else --recipe, or the run in `folder` that is to go on.

    Returns:
        The recipe, and the sizes of the model as far as the run or flags say them.

    Raises:
        ValueError: If there is no run to go on with, or it had others, or a value is not allowed.
    """
    short = SHORT if args.ablate and not args.recipe else {}
    config, sizes = vary(RECIPES[args.recipe or "reference"], {}, short)
    if args.resume:
        state = folder / "state.safetensors"
        if not state.exists():
            raise ValueError(f"{folder} holds no run to go on with; --out is the folder of the run")
        ran, sizes = read_run(state)
        was = dataclasses.asdict(ran) | dataclasses.asdict(build_model_config(ran, **sizes))
        check_epochs(state, ran.epochs, args.epochs or ran.epochs)
        if args.recipe and not args.epochs and config.epochs > ran.epochs:
            raise ValueError(
                f"{state} is of a run of {ran.epochs} epochs, and {args.recipe} has "
                f"{config.epochs}; leave --recipe out, or give --epochs, too"
            )
        config = config if args.recipe else ran
    given = dataclasses.replace(config, **_given(args, RECIPE_FLAGS))
    sizes |= _given(args, MODEL_FLAGS)
    if args.resume:
        check_recipe(state, was, given, build_model_config(given, **sizes))
    return given, sizes


def prepare_folder(folder: Path, resume: bool) -> None:
    """Make the folder of a run.

    Raises:
        ValueError: If it cannot be made, or holds a run that is not to go on.
    """
    state = folder / "state.safetensors"
    make_writable(folder)
    if not resume and state.exists():
        raise ValueError(f"{folder} holds a run; go on with --resume, or choose another --out")


def try_sources(config: TrainConfig, model_config: ViTConfig, resume: bool) -> None:
    """Load once what a run begins with and learns from, which shows mistakes before data are read.

    A run that goes on begins with nothing: it has its own weights.

    Raises:
        ValueError: If the checkpoint to start with or the teacher cannot be had or does not fit.
    """
    if config.start and not resume:
        start_from(ViT(model_config), load_checkpoint(Path(config.start)), classes=())
    if config.teacher:
        try_teacher(config.teacher)


def train(args: argparse.Namespace, device: torch.device) -> None:
    """Train as the command line says.

    Raises:
        SystemExit: If it was stopped: what comes after it must not take its model for a whole one.
    """
    out = args.out or Path("runs/ablation" if args.ablate else "runs/vit")
    config, sizes = choose_recipe(args, out)
    model_config = build_model_config(config, **sizes)  # before the data: mistakes show at once
    try_sources(config, model_config, args.resume)
    studies = PARTS if args.recipe == "best" else STUDIES
    if args.ablate:
        try_variants(studies, config, sizes)
    prepare_folder(out, args.resume)
    data = load_data(args.data, model_config.image_size)
    if args.ablate:
        if not ablate(studies, config, sizes, data, out, device):
            sys.exit("The same command goes on from here.")
        return
    model_config = dataclasses.replace(model_config, num_classes=len(data.classes))
    trainer = Trainer(config, model_config, data, out, device)
    if args.resume:
        trainer.resume()
    done = trainer.run()
    if rank() == 0:
        say_end(trainer, done)
    if not done:
        wait_for_all()  # once one has failed, torchrun ends the others, also in the midst of saving
        sys.exit(1)


def say_end(trainer: Trainer, done: bool) -> None:
    """Say where the weights are and how to look at them, or how a stopped run goes on."""
    if done:
        print(f"Weights in {trainer.folder / 'model.safetensors'}; to look at them on the page:")
        print(f"python app.py --checkpoints {shlex.quote(str(trainer.folder))}")
        return
    advice = "Go on with --resume and the same --out and --data"
    print(f"{trainer.describe_stop()} {advice}", file=sys.stderr, flush=True)


def evaluate(path: Path, data_path: Path | None, device: torch.device, save: bool) -> None:
    """Print the accuracy of the checkpoint at `path` on the test pictures.

    Args:
        path: The checkpoint.
        data_path: Folder or archive; None means CIFAR-10.
        device: Where the model runs.
        save: Whether the accuracy and the confusion matrix replace those in the checkpoint.

    Raises:
        ValueError: If it was trained on other classes than the data has.
    """
    checkpoint = load_checkpoint(path)
    if not data_path and checkpoint.classes != CIFAR_CLASSES:
        raise ValueError(
            f"{path} knows {list(checkpoint.classes)}, which are not the classes of CIFAR-10; give "
            f"--data PATH (it was trained on {checkpoint.metrics.get('data')})"
        )
    data = load_data(data_path, checkpoint.model.config.image_size, ("test",))
    if data.classes != checkpoint.classes:
        raise ValueError(
            f"{path} knows the classes {list(checkpoint.classes)}, the data has "
            f"{list(data.classes)}; they must be the same"
        )
    test = data.test.to(device)
    confusion = confusion_matrix(checkpoint.model.to(device), test, checkpoint.preprocessing)
    print(f"checkpoint: {path}")
    print(f"right: {int(confusion.trace()):,} of {int(confusion.sum()):,}")
    print(f"test accuracy: {100 * accuracy(confusion):.2f} %")
    if save:
        measured = {
            "test_accuracy": accuracy(confusion),
            "test_images": len(test.labels),
            "data": data.name,
            "confusion": confusion.tolist(),
        }
        checkpoint.metrics.update(measured)
        save_checkpoint(path, checkpoint)


def main(argv: list[str] | None = None) -> None:
    """Do what the command line says."""
    args = parse_args(argv)
    check_flags(args)
    if (args.export or args.evaluate) and "LOCAL_RANK" in os.environ and os.environ["RANK"] != "0":
        return  # the first of torchrun's processes does it
    if args.export:
        from vit.export import export_onnx

        checkpoint = args.checkpoint or SHIPPED
        out = args.out or Path(checkpoint.name).with_suffix(".onnx")
        export_onnx(checkpoint, out)
        print(f"wrote {out}")
    elif args.evaluate:
        path, device = args.checkpoint or args.evaluate, choose_device(args.device)
        evaluate(path, args.data, device, bool(args.save))
    else:
        with process_group(choose_device(args.device)) as device:
            train(args, device)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a file on Windows takes few letters
    try:
        main()
    except ValueError as error:
        sys.exit(f"train_vit.py: {error}")
    except KeyboardInterrupt:  # before or after the training, which saves first
        sys.exit("train_vit.py: stopped")
    except Exception as error:
        if not out_of_memory(error):
            raise
        sys.exit(f"train_vit.py: this takes more memory than there is ({error})")
