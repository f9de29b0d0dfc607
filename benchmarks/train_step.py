"""One training step of ViTs of the same size: ours against the usual libraries.

    pip install -r benchmarks/requirements.txt
    python benchmarks/train_step.py [--rounds 5] [--threads 2] [--batch 128]

A step is forward, backward and AdamW on pictures of 32 x 32: patch 4, dim 256, depth 6, 8 heads,
MLP 512, 3.2 M parameters. Every model runs as its users run it, in float32 and, on a CPU with
units for it, under bfloat16 autocast; with dropout 0.1, each library at the places it has for that,
and without. Ours runs a second time without the shortcut of its last block ("all tokens"). All take
turns in one process, so that whatever slows the machine slows all of them. Medians are printed; a
ratio is the median of those of the rounds, so a slow minute of the machine is on both of its sides.
A library that is not installed is left out. With glibc, these settings of the allocator make all
models faster:

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=2000000000:\
glibc.malloc.trim_threshold=8000000000
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.precision import has_units
from vit.model import ViT, ViTConfig

PRECISIONS = ("fp32", "bf16") if has_units("cpu") else ("fp32",)
OUR_PRECISION = PRECISIONS[-1]  # what all recipes but `reference` train in
DROPOUTS = (0.1, 0.0)


def ours(dropout: float) -> nn.Module:
    """Build the reference."""
    return ViT(ViTConfig(dropout=dropout))


class AllTokens(nn.Module):
    """A ViT whose last block computes also the tokens that its head does not read."""

    def __init__(self, model: ViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to logits (B, num_classes)."""
        return self.model.forward_by_layer(x)[0]


def ours_all_tokens(dropout: float) -> nn.Module:
    """Build the reference without the shortcut of its last block."""
    return AllTokens(ViT(ViTConfig(dropout=dropout)))


def ours_mean(dropout: float) -> nn.Module:
    """Build the reference without class token."""
    return ViT(ViTConfig(dropout=dropout, pool="mean"))


def timm(dropout: float) -> nn.Module:
    """Build timm's ViT."""
    from timm.models import VisionTransformer

    return VisionTransformer(
        img_size=32, patch_size=4, num_classes=10, embed_dim=256, depth=6, num_heads=8,
        mlp_ratio=2, pos_drop_rate=dropout, proj_drop_rate=dropout,
    )  # fmt: skip


def torchvision(dropout: float) -> nn.Module:
    """Build torchvision's ViT."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 4, 6, 8, 256, 512, dropout, num_classes=10)


def transformers(dropout: float) -> nn.Module:
    """Build the ViT of Hugging Face."""
    from transformers import ViTConfig as Config
    from transformers import ViTForImageClassification

    return ViTForImageClassification(
        Config(
            image_size=32, patch_size=4, num_labels=10, hidden_size=256, num_hidden_layers=6,
            num_attention_heads=8, intermediate_size=512, hidden_dropout_prob=dropout,
        )
    )  # fmt: skip


def vit_pytorch(dropout: float) -> nn.Module:
    """Build the ViT of vit-pytorch."""
    from vit_pytorch import ViT

    return ViT(
        image_size=32, patch_size=4, num_classes=10, dim=256, depth=6, heads=8, dim_head=32,
        mlp_dim=512, dropout=dropout, emb_dropout=dropout,
    )  # fmt: skip


def simple_vit(dropout: float) -> nn.Module:
    """Build the SimpleViT of vit-pytorch, which has no class token and no dropout."""
    if dropout:
        raise ImportError("SimpleViT has no dropout")
    from vit_pytorch import SimpleViT

    return SimpleViT(
        image_size=32, patch_size=4, num_classes=10, dim=256, depth=6, heads=8, dim_head=32,
        mlp_dim=512,
    )  # fmt: skip


OURS = {"ours": ours, "ours, all tokens": ours_all_tokens, "ours, mean pool": ours_mean}
PEERS = {
    "timm": timm,
    "torchvision": torchvision,
    "transformers": transformers,
    "vit-pytorch ViT": vit_pytorch,
    "vit-pytorch SimpleViT": simple_vit,
}


def make_step(model: nn.Module, precision: str, batch: int) -> Callable[[], None]:
    """Return a function that takes one training step of `model`."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = model(images)
        logits = output if isinstance(output, Tensor) else output.logits
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def build_steps(dropout: float, batch: int) -> dict[tuple[str, str], Callable[[], None]]:
    """Return the steps by model and precision; say which models are left out."""
    steps: dict[tuple[str, str], Callable[[], None]] = {}
    for name, build in (OURS | PEERS).items():
        try:
            steps |= {(name, p): make_step(build(dropout), p, batch) for p in PRECISIONS}
        except ImportError as error:
            print(f"left out: {name} ({error})")
    return steps


def measure(
    steps: dict[tuple[str, str], Callable[[], None]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of a step in every round: precision -> model -> seconds."""
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    for turn in range(1 + rounds):
        for key, step in steps.items():
            began = time.perf_counter()
            step()
            if turn:  # the first one warms up
                seconds[key].append(time.perf_counter() - began)
    return {p: {name: s for (name, q), s in seconds.items() if q == p} for p in PRECISIONS}


def median_ratio(peer: list[float], own: list[float]) -> float:
    """Return how many times as long a peer takes, of seconds in the same rounds."""
    return statistics.median(theirs / ours for theirs, ours in zip(peer, own, strict=True))


def report(seconds: dict[str, dict[str, list[float]]], batch: int) -> None:
    """Print images per second, and how many times the fastest peer we are."""
    medians = {p: {n: statistics.median(s) for n, s in seconds[p].items()} for p in PRECISIONS}
    print(f"{'images per second':24}" + "".join(f"{p:>8}" for p in PRECISIONS))
    for name in medians["fp32"]:
        print(f"{name:24}" + "".join(f"{batch / medians[p][name]:8.0f}" for p in PRECISIONS))
    for precision in PRECISIONS:
        peers = {name: s for name, s in medians[precision].items() if name in PEERS}
        fastest = min(peers, key=peers.__getitem__)
        peer, own = seconds[precision][fastest], seconds[OUR_PRECISION]
        print(f"times as fast as the fastest {precision} peer ({fastest}), in {OUR_PRECISION}:")
        for name in OURS:
            print(f"    {name:20}{median_ratio(peer, own[name]):8.2f}")


def main() -> None:
    """Measure with and without dropout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for dropout in DROPOUTS:
        print(f"\ndropout {dropout}, batch {args.batch}, {args.threads} threads")
        report(measure(build_steps(dropout, args.batch), args.rounds), args.batch)


if __name__ == "__main__":
    main()
