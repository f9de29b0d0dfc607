"""What the other scripts share: models of real size with random weights, a picture, a stopwatch.

The layouts are the official ones (GroundingDINO-tiny, CLIPSeg, GLIP-T, SAM 2.1 tiny), and so are
the processors, so the work is that of the real weights; nothing is downloaded.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.precision import has_units
from grounding.weights import DEMO_ROOT

ROOT = Path(__file__).parents[1]
SIZE = (1280, 960)
PHRASES = ["a dog", "the blue car"]
BOXES = np.array([[40, 40, 400, 500], [500, 200, 900, 700], [900, 80, 1200, 420]], np.float32)


def picture(seed: int) -> Image.Image:
    """Return a picture of 1280 x 960 pixels."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC)


def bert_tokenizer() -> Any:
    from transformers import BertTokenizerFast

    return BertTokenizerFast(str(ROOT / "assets" / "bert-base-uncased" / "vocab.txt"))


def stock_grounding_dino() -> tuple[Any, Any]:
    """Return transformers' model and processor."""
    from transformers import (
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

    model = GroundingDinoForObjectDetection(GroundingDinoConfig()).eval()
    return model, GroundingDinoProcessor(GroundingDinoImageProcessor(), bert_tokenizer())


def stock_clipseg() -> tuple[Any, Any]:
    """Return transformers' model and processor."""
    from transformers import AutoProcessor, CLIPSegConfig, CLIPSegForImageSegmentation

    config = CLIPSegConfig(
        vision_config={"patch_size": 16, "image_size": 352},
        reduce_dim=64,
        use_complex_transposed_convolution=True,
    )
    processor = AutoProcessor.from_pretrained(DEMO_ROOT / "clipseg")
    processor.image_processor.size = {"height": 352, "width": 352}
    return CLIPSegForImageSegmentation(config).eval(), processor


def stock_sam2() -> Any:
    """Return the official model."""
    import sam2
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    config = Path(sam2.__file__).parent / "configs" / "sam2.1" / "sam2.1_hiera_t.yaml"
    return instantiate(OmegaConf.load(config).model).eval()


def grounding_dino() -> Any:
    from grounding.grounders.grounding_dino.grounder import GroundingDino
    from grounding.grounders.grounding_dino.lean import make_lean

    model, processor = stock_grounding_dino()
    make_lean(model, "cpu")
    return GroundingDino(model, processor, "cpu")


def clipseg() -> Any:
    from grounding.grounders.clipseg import ClipSeg

    return ClipSeg(*stock_clipseg(), "cpu")


def glip() -> Any:
    from grounding.grounders.glip.config import GlipConfig
    from grounding.grounders.glip.grounder import GlipGrounder
    from grounding.grounders.glip.model import Glip

    return GlipGrounder(Glip(GlipConfig()).eval(), bert_tokenizer(), "cpu")


def sam2() -> Any:
    from grounding.segmenters.sam2 import Sam2

    return Sam2(stock_sam2())


def read_rounds(doc: str, rounds: int) -> int:
    """Read the flags that the scripts share, set up, and return how many rounds are asked for."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    set_up(args.threads)
    return args.rounds


def set_up(threads: int) -> None:
    """Fix the threads and the random weights, and say what the figures below stand on."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shipped = "bfloat16 where it is exact enough" if has_units("cpu") else "float32, as the plain"
    print(f"{threads} threads; ours computes in {shipped}")


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds a call takes, and its answer."""
    began = time.perf_counter()
    answer = call()
    return time.perf_counter() - began, answer


def medians(sides: dict[str, Callable[[int], Any]], rounds: int) -> dict[str, float]:
    """Let sides take turns, each given the number of the round; return median seconds.

    Round 0 warms up and does not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            taken, _ = timed(lambda side=side, turn=turn: side(turn))
            seconds[name] += [taken] if turn else []
    return {name: statistics.median(values) for name, values in seconds.items()}


def own_peak_gib() -> float:
    """Return the most memory that this process has held, from Linux's own account.

    What `getrusage` says begins with the peak of the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**20


def peak_gib(script: str, *arguments: str) -> float:
    """Run a script in a process of its own that prints its peak in its last line."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])
