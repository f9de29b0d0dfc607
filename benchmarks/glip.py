"""GLIP-T at 800 px: the boxes of our forward and of a plain one with the same random weights.

    python benchmarks/glip.py [--threads 2] [--demo SCENES]

plain  float32, the caption padded to 256 tokens as the official code pads it, every projection of
       the picture spelt out (2048 wide), torchvision's deform_conv2d
ours   only the tokens there are, projections moved to the side of the text, deformable samples by
       embedding_bag, the half that sees no text in bfloat16 if this processor has units for it

On a padded picture of 800 x 1088 and a caption of 12 tokens the boxes of both are compared,
position by position; stages.py has their times and memory. With `--demo` the boxes that the demo
weights keep on held-out scenes are compared with and without bfloat16, too.
"""

import argparse
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou, deform_conv2d

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.precision import has_units
from grounding.core import Regions
from grounding.demo.scenes import make_scene, queries
from grounding.grounders.glip import dyconv, load
from grounding.grounders.glip.boxes import anchors, decode
from grounding.grounders.glip.config import ANCHOR_SIZES, STRIDES, GlipConfig
from grounding.grounders.glip.fusion import CrossAttention
from grounding.grounders.glip.grounder import look
from grounding.grounders.glip.model import Glip, RawDetections
from grounding.weights import DEMO_ROOT

HEIGHT, WIDTH, TOKENS, PADDED = 800, 1088, 12, 256
SIDES = ("plain", "ours")


def plain_attention(
    m: CrossAttention, v: Tensor, t: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attend as the paper writes it."""

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (m.heads, -1)).transpose(1, 2)

    scores = heads(m.v_proj(v) * m.scale) @ heads(m.l_proj(t)).mT
    to_text = (scores.mT - scores.mT.amax(-1, keepdim=True)).softmax(-1)
    if valid is not None:
        scores = scores.masked_fill(~valid[:, None, None], -torch.inf)
    picture = (scores.softmax(-1) @ heads(m.values_l_proj(t))).transpose(1, 2).flatten(2)
    text = (to_text @ heads(m.values_v_proj(v))).transpose(1, 2).flatten(2)
    return m.out_v_proj(picture), m.out_l_proj(text)


def plain_deform(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, stride: int
) -> Tensor:
    """Convolve with torchvision's kernel."""
    return deform_conv2d(x, offset, weight, bias, stride, padding=1, mask=mask)


@torch.inference_mode()
def forward(side: str, model: Glip, pixels: Tensor, ids: Tensor) -> RawDetections:
    """Run one side; its logits are those of the tokens there are."""
    if side == "ours":
        return model.read(look(model, pixels), ids)
    padded = torch.nn.functional.pad(ids, (0, PADDED - ids.shape[1]))
    valid = torch.arange(PADDED)[None] < ids.shape[1]
    with (
        mock.patch.object(CrossAttention, "forward", plain_attention),
        mock.patch.object(dyconv, "deform_conv", plain_deform),
    ):
        raw = model(pixels, padded, valid)
    return RawDetections(
        [logits[..., : ids.shape[1]] for logits in raw.logits], raw.deltas, raw.centerness
    )


def build() -> tuple[Glip, Tensor, Tensor]:
    """Return GLIP-T with random weights, and an input.

    Offsets start small, as in training: a random network with large ones is chaotic, and no two
    roundings of it agree.
    """
    torch.manual_seed(0)
    model = Glip(GlipConfig()).eval()
    with torch.no_grad():
        for block in model.tower:
            block.visual.offset.weight.mul_(0.1)
    ids = torch.randint(1000, 30000, (1, TOKENS))
    return model, torch.randn(1, 3, HEIGHT, WIDTH), ids


def all_boxes(raw: RawDetections) -> Tensor:
    """Return the box of every position, (N, 4)."""
    parts = zip(raw.deltas, STRIDES, ANCHOR_SIZES, strict=True)
    return torch.cat(
        [
            decode(d[0].flatten(1).T, anchors(*d.shape[-2:], stride, size))
            for d, stride, size in parts
        ]
    )


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU of each box with the one of the same number."""
    chunks = zip(a.split(500), b.split(500), strict=True)
    return torch.cat([box_iou(x, y).diagonal() for x, y in chunks])


def compare() -> None:
    """Print how far the boxes of both sides are apart."""
    inputs = build()
    plain, ours = (all_boxes(forward(side, *inputs)) for side in SIDES)
    iou = paired_iou(plain, ours)
    print(f"boxes  IoU of {len(iou)} positions: mean {iou.mean():.4f}, worst {iou.min():.4f}")


def same_boxes(one: Regions, other: Regions) -> list[float]:
    """Return for each box of `one` the best IoU with a box of the same label in `other`."""
    ious = box_iou(torch.from_numpy(one.boxes), torch.from_numpy(other.boxes)).numpy()
    same = np.array(one.labels)[:, None] == np.array(other.labels)[None]
    return [float(row.max(initial=0)) for row in ious * same]


def compare_demo(scenes: int) -> None:
    """Print how well the boxes that the demo weights keep agree with and without bfloat16."""
    if not has_units("cpu"):
        sys.exit("--demo compares bfloat16 with float32; this processor has no units for bfloat16")
    # Two, because a grounder remembers what it has seen of a picture.
    short, long = (load(DEMO_ROOT / "glip", "cpu") for _ in range(2))
    ious: list[float] = []
    for i in range(scenes):
        scene = make_scene(np.random.default_rng((200_000, i)), 384, held_out=True)
        phrases = [q.phrase for q in queries(scene, 4, 1, np.random.default_rng(i))]
        image = Image.fromarray(scene.image)
        fast = short.ground(image, phrases, 0.4)
        with mock.patch("common.precision.has_units", return_value=False):
            exact = long.ground(image, phrases, 0.4)
        ious += same_boxes(exact, fast) + same_boxes(fast, exact)
    found = np.array(ious)
    print(f"demo   IoU of {len(found)} kept boxes: mean {found.mean():.4f}, "
          f"{(found >= 0.99).mean():.1%} at least .99")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--demo", type=int, default=0, metavar="SCENES")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    compare()
    if args.demo:
        compare_demo(args.demo)


if __name__ == "__main__":
    main()
