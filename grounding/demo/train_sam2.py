"""SAM 2 at demo size: the official SAM2Base, its start, its loss and its held-out metrics.

Images only: Ravi et al. 2024, "SAM 2", https://arxiv.org/abs/2408.00714; prompts and losses as in
Kirillov et al. 2023, "Segment Anything", https://arxiv.org/abs/2304.02643, appendix A.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from grounding.core import mask_boxes
from grounding.demo.calibration import held_out_scenes
from grounding.demo.scenes import Scene, make_scene, normalise

CONFIG = Path(__file__).with_name("sam2.yaml")
LEARNING_RATE = 1e-3
BATCH = 8
PROMPTS = 5
IMAGE_SIZE = 384
# Trained on small pictures first, which is cheap: until which share of the training, and how small.
SIZES = ((0.4, 128), (0.8, 256), (1.0, IMAGE_SIZE))
_PAD, _POINT, _TOP_LEFT, _BOTTOM_RIGHT = -1, 1, 2, 3


@dataclass(frozen=True)
class Prompts:
    """What is asked of SAM 2, P prompts for each of B images, and the right answers.

    Attributes:
        points: float32 (B * P, 2, 2) xy in pixels of `IMAGE_SIZE`.
        labels: int64 (B * P, 2): the corners of a box, or a point and padding, or only padding.
        coarse: float32 (B * P, 1, S / 4, S / 4) logits of a coarse mask.
        has_coarse: bool (B * P,).
        targets: float32 (B * P, S / 4, S / 4) in [0, 1], the share of each cell that is covered.
    """

    points: Tensor
    labels: Tensor
    coarse: Tensor
    has_coarse: Tensor
    targets: Tensor


def build() -> nn.Module:
    """Return the untrained model, started so that box prompts are learnt.

    Stock random Fourier features are nearly constant over a picture of this size, and box
    prompts never find their place: the frequencies are spread from .1 to 1, and the decoder's
    cross-attention starts out comparing positions (key projection = 2 x query projection).
    """
    model = instantiate(OmegaConf.load(CONFIG).model)
    matrix = model.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    matrix.copy_(torch.randn_like(matrix) * torch.logspace(-1, 0, matrix.shape[1]))
    transformer = model.sam_mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in attentions:
        attention.k_proj.weight.data.copy_(2 * attention.q_proj.weight)
        attention.k_proj.bias.data.copy_(2 * attention.q_proj.bias)
    return model


def _coarsen(mask: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Return logits (S / 4, S / 4) like those of a weak text-prompted model."""
    size = mask.shape[0] // 4
    soft = torch.from_numpy(mask.astype(np.float32))[None, None]
    small = F.adaptive_avg_pool2d(soft, int(rng.integers(8, 21)))
    small = small + torch.from_numpy(rng.normal(0, 0.12, small.shape).astype(np.float32))
    large = F.interpolate(small, (size, size), mode="bilinear", align_corners=False)[0, 0]
    return (large.clamp(0, 1) - rng.uniform(0.3, 0.6)) * rng.uniform(8, 24)


def _jitter(box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the box with its corners moved by about 6 % of its sides, most of the time."""
    if rng.random() > 0.7:
        return box
    sides = np.tile(box[2:] - box[:2], 2)
    return box + rng.normal(0, 0.06, 4) * sides


def sample_prompts(scenes: list[Scene], count: int, rng: np.random.Generator) -> Prompts:
    """Ask for `count` objects of each scene: boxes, single points and coarse masks."""
    size = scenes[0].image.shape[0]
    total = len(scenes) * count
    points = np.zeros((total, 2, 2), np.float32)
    labels = np.full((total, 2), _PAD)
    coarse = torch.zeros(total, 1, size // 4, size // 4)
    has_coarse = torch.zeros(total, dtype=torch.bool)
    targets = np.zeros((total, size, size), np.float32)
    for row in range(total):
        scene = scenes[row // count]
        chosen = rng.integers(len(scene.names))
        mask = scene.masks[chosen]
        targets[row] = mask
        kind = rng.choice(["box", "point", "box+mask", "mask"], p=[0.55, 0.1, 0.25, 0.1])
        box = _jitter(scene.boxes[chosen], rng)
        if "mask" in kind:
            coarse[row, 0] = _coarsen(mask, rng)
            has_coarse[row] = True
            # Who has only a coarse mask has only its box, too.
            found = (coarse[row] > 0).numpy()
            box = 4 * mask_boxes(found)[0] if found.any() else box
        if "box" in kind:
            points[row] = box.reshape(2, 2)
            labels[row] = _TOP_LEFT, _BOTTOM_RIGHT
        if kind == "point":
            inside = np.argwhere(mask)
            points[row, 0] = inside[rng.integers(len(inside))][::-1] + 0.5
            labels[row, 0] = _POINT
    return Prompts(
        points=torch.from_numpy(points * (IMAGE_SIZE / size)),
        labels=torch.from_numpy(labels),
        coarse=coarse,
        has_coarse=has_coarse,
        targets=F.avg_pool2d(torch.from_numpy(targets), 4),
    )


def predict(model: nn.Module, images: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
    """Return mask logits (B * P, 4, S / 4, S / 4) and predicted IoUs (B * P, 4).

    Mask 0 is the single answer, 1 to 3 are the alternatives for ambiguous prompts.
    """
    levels = model.forward_image(images)["backbone_fpn"]  # S / 4, S / 8, S / 16
    each = len(prompts.points) // len(images)
    *fine, embedding = [level.repeat_interleave(each, dim=0) for level in levels]
    embedding = embedding + model.no_mem_embed.view(1, -1, 1, 1)
    encoder = model.sam_prompt_encoder
    # Training runs on smaller pictures; coordinates are always pixels of IMAGE_SIZE.
    encoder.image_embedding_size = tuple(embedding.shape[-2:])
    sparse, empty = encoder((prompts.points, prompts.labels), None, None)
    dense = torch.where(
        prompts.has_coarse.view(-1, 1, 1, 1), encoder.mask_downscaling(prompts.coarse), empty
    )
    logits, ious, _, _ = model.sam_mask_decoder.predict_masks(
        embedding, encoder.get_dense_pe(), sparse, dense, False, fine
    )
    return logits, ious


def enlarge(logits: Tensor) -> Tensor:
    """Return mask logits (N, S / 4, S / 4) at the picture's size, as the predictor does."""
    return F.interpolate(logits[:, None], scale_factor=4.0, mode="bilinear")[:, 0]


def mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return BCE + 5 focal + dice of each mask, (..., H, W) -> (...).

    Targets are shares of cells: the contour of the enlarged mask is finer than the cells.
    """
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    miss = (probability - targets).abs()
    focal = (miss**2 * bce).mean((-2, -1))
    overlap = 2 * (probability * targets).sum((-2, -1)) + 1
    dice = 1 - overlap / ((probability + targets).sum((-2, -1)) + 1)
    return bce.mean((-2, -1)) + 5 * focal + dice


def mask_iou(masks: Tensor, targets: Tensor) -> Tensor:
    """Return the IoU of bool masks, (..., H, W) -> (...)."""
    union = (masks | targets).sum((-2, -1))
    return (masks & targets).sum((-2, -1)) / union.clamp(min=1)


def loss(model: nn.Module, rng: np.random.Generator, progress: float) -> Tensor:
    """Return the loss on a fresh batch of scenes; small ones at first.

    Args:
        model: What `build` returns.
        rng: Source of the scenes.
        progress: Share of the training done, 0 to 1.
    """
    size = next(size for until, size in SIZES if progress <= until)
    scenes = [make_scene(rng, size) for _ in range(BATCH)]
    prompts = sample_prompts(scenes, PROMPTS, rng)
    logits, ious = predict(model, torch.from_numpy(normalise(scenes)), prompts)
    targets = prompts.targets[:, None].expand_as(logits)
    losses = mask_loss(logits, targets)
    with torch.no_grad():
        actual = mask_iou(logits > 0, targets > 0.5)
    best = losses[:, 1:].min(dim=1).values
    return (losses[:, 0] + best + (ious - actual).square().mean(dim=1)).mean()


def save(model: nn.Module, folder: Path) -> None:
    """Write config.yaml and model.safetensors (fp16)."""
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    shutil.copyfile(CONFIG, folder / "config.yaml")


def load(folder: Path) -> nn.Module:
    """Return the model that `save` wrote, fp32, to be trained on."""
    model = instantiate(OmegaConf.load(folder / "config.yaml").model)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.float()


@torch.no_grad()
def evaluate(model: nn.Module, scenes: int) -> dict[str, float]:
    """Return the mean IoU of the answers to true boxes on held-out scenes."""
    found = []
    for scene, _ in held_out_scenes(scenes, IMAGE_SIZE):
        count = len(scene.names)
        targets = torch.from_numpy(scene.masks)
        prompts = Prompts(
            points=torch.from_numpy(scene.boxes).view(-1, 2, 2),
            labels=torch.tensor([[_TOP_LEFT, _BOTTOM_RIGHT]]).repeat(count, 1),
            coarse=torch.zeros(count, 1, IMAGE_SIZE // 4, IMAGE_SIZE // 4),
            has_coarse=torch.zeros(count, dtype=torch.bool),
            targets=F.avg_pool2d(targets.float(), 4),
        )
        logits, _ = predict(model, torch.from_numpy(normalise([scene])), prompts)
        found.append(mask_iou(enlarge(logits[:, 0]) > 0, targets))
    return {"box_iou": round(torch.cat(found).mean().item(), 4)}
