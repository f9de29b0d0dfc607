"""Latency of one picture: its logits, with attention, with the rollout, and the tab's whole answer.

    python benchmarks/rollout.py [--rounds 200] [--threads 2]

The reference ViT (32 x 32 pictures, 3.2 M parameters) in float32, and the bundled checkpoint for
the answer in the tab: a picture of 1280 x 960 in, probabilities and the heat map over the picture
out. All take turns.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from vit.model import ViT, ViTConfig
from vit.predictor import Predictor
from vit.rollout import attention_map, attention_rollout
from vit.view import Look, Settings, explain

CHECKPOINT = Path(__file__).parents[1] / "assets" / "vit-cifar10.safetensors"


def build_calls() -> dict[str, Callable[[], object]]:
    """Return what is measured, by name."""
    model = ViT(ViTConfig()).eval()
    picture = torch.randn(1, 3, 32, 32)

    def rollout() -> torch.Tensor:
        _, attentions = model.forward_with_attention(picture)
        return attention_map(attention_rollout(attentions), model.config.grid_size)

    predictor = Predictor(CHECKPOINT)
    photo = Image.effect_noise((1280, 960), 60).convert("RGB")

    def answer() -> Image.Image:
        return explain(Look(predictor, predictor.predict(photo), photo), Settings())

    return {
        "logits": lambda: model(picture),
        "logits, attentions": lambda: model.forward_with_attention(picture),
        "logits, attentions, rollout": rollout,
        "picture to heat map": answer,
    }


@torch.inference_mode()
def measure(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of every call, sorted, after ten calls to warm up."""
    milliseconds = {name: [] for name in calls}
    for turn in range(10 + rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn >= 10:
                milliseconds[name].append(1000 * (time.perf_counter() - began))
    return {name: sorted(values) for name, values in milliseconds.items()}


def main() -> None:
    """Measure and print medians, 95th percentiles and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    measured = measure(build_calls(), args.rounds)
    logits = statistics.median(measured["logits"])
    print(f"{'one picture, ms':28}{'median':>8}{'p95':>8}{'ratio':>8}")
    for name, values in measured.items():
        median, p95 = statistics.median(values), values[int(0.95 * len(values))]
        print(f"{name:28}{median:8.2f}{p95:8.2f}{median / logits:8.2f}")


if __name__ == "__main__":
    main()
