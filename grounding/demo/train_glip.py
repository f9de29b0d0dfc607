"""GLIP at demo size: its start, its loss, held-out metrics.

Li et al. 2022, "Grounded Language-Image Pre-training", https://arxiv.org/abs/2112.03857. The
network is the one of `grounders.glip`, small, and is saved in the layout of the official weights.
"""

import copy
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.ops import box_iou
from transformers import BertTokenizer

from grounding.demo.atss import Objects, atss_loss, flatten
from grounding.demo.calibration import calibration_scenes, fit_sigmoid, held_out_scenes, summary
from grounding.demo.dense import DenseHead
from grounding.demo.scenes import Query, Scene, captions, make_scene
from grounding.demo.tokenizers import bert_vocabulary, make_bert_tokenizer
from grounding.grounders.glip.boxes import decode, phrase_scores
from grounding.grounders.glip.caption import encode, join
from grounding.grounders.glip.checkpoint import official_weights, read_model
from grounding.grounders.glip.config import GlipConfig
from grounding.grounders.glip.model import Glip
from grounding.grounders.glip.pictures import prepare

LEARNING_RATE = 1e-3
BATCH = 8
IMAGE_SIZE = 192
SMALL_SIZE = 128
CALIBRATION_SCENES = 150
# An even chance lies above .5, where the page starts its threshold.
EVEN_SCORE = 0.6
CONFIG = GlipConfig(
    embed_dim=32,
    depths=(2, 2, 2, 1),
    num_heads=(1, 2, 4, 8),
    window_size=4,
    channels=96,
    head_blocks=2,
    fusion_dim=128,
    fusion_heads=4,
    vocab_size=len(bert_vocabulary()),
    text_dim=128,
    text_layers=2,
    text_heads=4,
    text_mlp_dim=256,
    text_positions=256,
    short_side=IMAGE_SIZE,
    long_side=IMAGE_SIZE,
)
# Ends of boxes are inside in GLIP, outside in scenes.
_INSIDE = torch.tensor([0.0, 0.0, 1.0, 1.0])


class Trainee(nn.Module):
    """The model and what only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.glip = Glip(CONFIG)
        self.dense = DenseHead(CONFIG.channels)
        self.tokenizer: BertTokenizer = make_bert_tokenizer()


@dataclass(frozen=True)
class Batch:
    """Scenes with captions.

    Attributes:
        pixels: float32 (B, 3, S, S), BGR, normalised.
        input_ids: int64 (B, T).
        valid: bool (B, T), False on padding.
        phrases: One bool (P, T) per scene, the tokens of each phrase.
        objects: What the phrases of each scene mean.
    """

    pixels: Tensor
    input_ids: Tensor
    valid: Tensor
    phrases: list[Tensor]
    objects: list[Objects]


@torch.no_grad()
def build() -> Trainee:
    """Return the untrained model, its head started as the official code does.

    Only the scores' scale is larger and their prior higher: that saves the first minutes.
    """
    trainee = Trainee()
    glip = trainee.glip
    for module in (*glip.tower.modules(), glip.bbox_pred, glip.centerness):
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    glip.log_scale.fill_(-1)
    glip.bias0.fill_(-4)
    return trainee


def _objects(scene: Scene, asked: list[Query], phrases: Tensor) -> Objects:
    """Return the objects some phrase means, given the tokens of each phrase, bool (P, T)."""
    members = torch.from_numpy(np.stack([query.members for query in asked]))  # (P, G)
    meant = members.any(dim=0)
    tokens = (members.float().T @ phrases.float()).clamp(max=1)
    return Objects(torch.from_numpy(scene.boxes)[meant] - _INSIDE, tokens[meant])


def make_batch(scenes: list[Scene], asked: list[list[Query]], tokenizer: BertTokenizer) -> Batch:
    """Put scenes and what is asked of each into tensors."""
    size = scenes[0].image.shape[0]
    pixels, _ = prepare([Image.fromarray(scene.image) for scene in scenes], size, None)
    texts = [join([query.phrase for query in one]) for one in asked]
    encoded = [encode(tokenizer, *one, CONFIG.max_tokens) for one in texts]
    longest = max(ids.shape[1] for ids, _ in encoded)
    input_ids = torch.zeros(len(scenes), longest, dtype=torch.long)
    valid = torch.zeros_like(input_ids, dtype=torch.bool)
    phrases = [torch.zeros(len(one), longest, dtype=torch.bool) for one in asked]
    for i, (ids, positive) in enumerate(encoded):
        input_ids[i, : ids.shape[1]] = ids[0]
        valid[i, : ids.shape[1]] = True
        phrases[i][:, : ids.shape[1]] = positive
    objects = [_objects(*one) for one in zip(scenes, asked, phrases, strict=True)]
    return Batch(pixels, input_ids, valid, phrases, objects)


def loss(model: nn.Module, rng: np.random.Generator, progress: float) -> Tensor:
    """Return the loss on a fresh batch of scenes, given the share of the training done.

    The first 60 % run on smaller pictures, which is half the price and teaches the words as well.
    """
    assert isinstance(model, Trainee)
    size = SMALL_SIZE if progress < 0.6 else IMAGE_SIZE
    scenes = [make_scene(rng, size) for _ in range(BATCH)]
    asked = captions(scenes, rng)
    batch = make_batch(scenes, asked, model.tokenizer)
    maps = model.glip.look(batch.pixels)
    raw = model.glip.read(maps, batch.input_ids, batch.valid)
    named = model.dense.loss(maps[0].permute(0, 2, 3, 1), scenes)
    return atss_loss(raw, batch.valid, batch.objects) + max(0.0, 1 - progress / 0.8) * named


@dataclass(frozen=True)
class Best:
    """The best box of each of P phrases.

    Attributes:
        scores: float32 (P,), means of the tokens' probabilities.
        centerness: float32 (P,), probabilities.
        overlaps: float32 (P,), IoU with the nearest object meant, 0 when there is none.
    """

    scores: Tensor
    centerness: Tensor
    overlaps: Tensor


def _best_boxes(trainee: Trainee, scene: Scene, asked: list[Query]) -> Best:
    batch = make_batch([scene], [asked], trainee.tokenizer)
    answers = flatten(trainee.glip(batch.pixels, batch.input_ids))
    scores = phrase_scores(answers.logits[0], batch.phrases[0])  # (N, P)
    centerness = answers.centerness[0].sigmoid()
    best = (scores * centerness[:, None]).argmax(dim=0)
    boxes = decode(answers.deltas[0], torch.cat(answers.anchors))[best] + _INSIDE
    members = torch.from_numpy(np.stack([query.members for query in asked]))
    overlaps = (box_iou(boxes, torch.from_numpy(scene.boxes)) * members).amax(dim=1)
    return Best(scores.gather(0, best[None])[0], centerness[best], overlaps)


@torch.no_grad()
def rescale_scores(glip: Glip, scale: float, shift: float) -> None:
    """Make every score logit `scale` * logit + `shift`, by the weights alone."""
    glip.log_scale.sub_(math.log(scale))
    glip.bias_lang.mul_(scale)
    glip.bias0.mul_(scale).add_(shift)


@torch.no_grad()
def _calibrate(trainee: Trainee) -> tuple[float, float]:
    """Return scale and shift of the logits that give `EVEN_SCORE` to boxes with an even chance."""
    scenes = calibration_scenes(CALIBRATION_SCENES, IMAGE_SIZE)
    found = [_best_boxes(trainee, scene, asked) for scene, asked in scenes]
    scores = torch.cat([best.scores for best in found])
    right = torch.cat([best.overlaps for best in found]) > 0.5
    central = torch.cat([best.centerness for best in found]).mean().item()
    # What the page sees is the square root of score times centerness.
    return fit_sigmoid(scores.logit(), right, even=min(EVEN_SCORE**2 / central, 0.5))


def save(model: nn.Module, folder: Path) -> None:
    """Write the config, the vocabulary and the weights (fp16) under their official names."""
    assert isinstance(model, Trainee)
    glip = copy.deepcopy(model.glip)
    rescale_scores(glip, *_calibrate(model))
    weights = {name: value.half().contiguous() for name, value in official_weights(glip).items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(CONFIG), indent=2) + "\n")
    rows = sorted(bert_vocabulary().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in rows))


def load(folder: Path) -> Trainee:
    """Return the model that `save` wrote, to be trained on."""
    trainee = build()
    trainee.glip = read_model(folder).float().train()
    return trainee


@torch.no_grad()
def evaluate(model: nn.Module, scenes: int) -> dict[str, float]:
    """Return the `summary` of the best boxes on held-out scenes."""
    assert isinstance(model, Trainee)
    right, ranks, there = [], [], []
    for scene, asked in held_out_scenes(scenes, IMAGE_SIZE):
        best = _best_boxes(model, scene, asked)
        right.append(best.overlaps > 0.5)
        ranks.append(best.scores * best.centerness)
        there += [bool(query.members.any()) for query in asked]
    rank, present = torch.cat(ranks), torch.tensor(there)
    return summary(torch.cat(right)[present], rank[present], rank[~present])
