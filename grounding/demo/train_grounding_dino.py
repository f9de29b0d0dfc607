"""GroundingDINO at demo size: transformers' classes, their start, the loss, held-out metrics.

Liu et al. 2023, "Grounding DINO", https://arxiv.org/abs/2303.05499. The loss that comes with
transformers is for fine-tuning (its proposals get no gradient), so here is one that trains from
scratch: focal loss on tokens, L1 and GIoU on boxes, the four best proposals per object on the
encoder (in the spirit of Ouyang-Zhang et al. 2022, "NMS strikes back",
https://arxiv.org/abs/2212.06137) and one query per object on each decoder layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_convert, box_iou, generalized_box_iou, generalized_box_iou_loss
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    SwinConfig,
)

from .dense import DenseHead
from .pretrained import save_half
from .scenes import MAX_OBJECTS, Query, Scene, make_scene, normalise, queries
from .tokenizers import bert_vocabulary, make_bert_tokenizer

LEARNING_RATE = 8e-4
BATCH = 8
IMAGE_SIZE = 160
SMALL_SIZE = 128
PHRASES = 8
WIDTH = 128
_STOP = 1012
_FINE_STRIDE = 8
_PROPOSALS_PER_OBJECT = 4


@dataclass(frozen=True)
class Batch:
    """Scenes with captions.

    Attributes:
        pixels: float32 (B, 3, S, S), normalised.
        input_ids: int64 (B, T).
        attention_mask: int64 (B, T).
        boxes: float32 (B, MAX_OBJECTS, 4), cxcywh in 0..1.
        tokens: float32 (B, MAX_OBJECTS, T), 1 on the tokens of the phrases that mean the object.
        real: bool (B, MAX_OBJECTS), False on padding and on objects no phrase means.
    """

    pixels: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    boxes: Tensor
    tokens: Tensor
    real: Tensor


class Trainee(nn.Module):
    """The model and what only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.detector = GroundingDinoForObjectDetection(_config())
        self.dense = DenseHead(WIDTH)
        self.tokenizer: BertTokenizer = make_bert_tokenizer()


def _config() -> GroundingDinoConfig:
    """Return the stock architecture, small and without dropout."""
    swin = SwinConfig(
        image_size=IMAGE_SIZE,
        embed_dim=32,
        depths=[2, 2, 2, 2],
        num_heads=[1, 2, 4, 8],
        window_size=4,
        drop_path_rate=0.0,
        out_indices=[2, 3, 4],
    )
    bert = BertConfig(
        vocab_size=len(bert_vocabulary()),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return GroundingDinoConfig(
        backbone_config=swin,
        text_config=bert,
        num_queries=30,
        d_model=WIDTH,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=2 * WIDTH,
        decoder_ffn_dim=2 * WIDTH,
        num_feature_levels=3,
        encoder_n_points=2,
        dropout=0.0,
        fusion_droppath=0.0,
    )


@torch.no_grad()
def build() -> Trainee:
    """Return the untrained model, started so that it can be trained from scratch.

    Scores are dot products without a bias. With LayerNorms at .3 they start small, and dimension
    0 is set aside as a constant -4, the usual prior of focal loss. Fusion starts open, and the
    embedding of the level does not drown the position.
    """
    trainee = Trainee()
    model = trainee.detector.model
    text_norm = model.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    for norm, prior in ((model.decoder.layer_norm, 1), (model.enc_output_norm, 1), (text_norm, -4)):
        norm.weight.fill_(0.3)
        norm.weight[0] = 0
        norm.bias[0] = prior
    for layer in model.encoder.layers:
        layer.fusion_layer.vision_param.fill_(0.1)
        layer.fusion_layer.text_param.fill_(0.1)
    model.level_embed.mul_(0.1)
    return trainee


def make_processor() -> GroundingDinoProcessor:
    """Return the stock processor: every picture becomes a square."""
    square = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    images = GroundingDinoImageProcessor(size=square, do_pad=False)
    return GroundingDinoProcessor(images, make_bert_tokenizer())


def _caption(asked: list[Query], tokenizer: BertTokenizer) -> tuple[list[int], list[slice]]:
    """Return the ids of "phrase. phrase." and where each phrase is, as the stock processor does."""
    ids, places = [tokenizer.cls_token_id], []
    for query in asked:
        words = tokenizer(query.phrase, add_special_tokens=False)["input_ids"]
        places.append(slice(len(ids), len(ids) + len(words)))
        ids += [*words, _STOP]
    return [*ids, tokenizer.sep_token_id], places


def make_batch(scenes: list[Scene], asked: list[list[Query]], tokenizer: BertTokenizer) -> Batch:
    """Put scenes and what is asked of each into tensors."""
    captions = [_caption(one, tokenizer) for one in asked]
    count, longest = len(scenes), max(len(ids) for ids, _ in captions)
    input_ids = torch.zeros(count, longest, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    boxes = torch.full((count, MAX_OBJECTS, 4), 0.5)
    tokens = torch.zeros(count, MAX_OBJECTS, longest)
    for i, (ids, places) in enumerate(captions):
        input_ids[i, : len(ids)] = torch.tensor(ids)
        attention_mask[i, : len(ids)] = 1
        size, objects = scenes[i].image.shape[0], len(scenes[i].names)
        boxes[i, :objects] = box_convert(torch.from_numpy(scenes[i].boxes), "xyxy", "cxcywh") / size
        for query, place in zip(asked[i], places, strict=True):
            for member in np.flatnonzero(query.members):
                tokens[i, member, place] = 1
    pixels = torch.from_numpy(normalise(scenes))
    return Batch(pixels, input_ids, attention_mask, boxes, tokens, tokens.sum(-1) > 0)


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the focal loss (alpha .35, gamma 2), unreduced.

    Lin et al. 2017, "Focal Loss for Dense Object Detection", https://arxiv.org/abs/1708.02002.
    """
    probability = logits.sigmoid()
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    miss = (probability - targets).abs()
    return (0.35 * targets + 0.65 * (1 - targets)) * miss**2 * loss


def _corners(boxes: Tensor) -> Tensor:
    return box_convert(boxes, "cxcywh", "xyxy")


@torch.no_grad()
def matching_cost(logits: Tensor, boxes: Tensor, batch: Batch) -> Tensor:
    """Return what it costs to give each object to each query, (B, Q, MAX_OBJECTS)."""
    score = logits.sigmoid()
    wanted = batch.tokens / batch.tokens.sum(-1, keepdim=True).clamp(min=1)
    likelihood = score @ wanted.transpose(1, 2)
    distance = torch.cdist(boxes, batch.boxes, p=1)
    pairs = zip(_corners(boxes), _corners(batch.boxes), strict=True)
    overlap = torch.stack([generalized_box_iou(ours, theirs) for ours, theirs in pairs])
    cost = 5 * distance - 2 * overlap - 2 * likelihood
    return cost.masked_fill(~batch.real[:, None], torch.inf)


def assign(cost: Tensor, rounds: int) -> Tensor:
    """Give each object `rounds` queries of its own, cheapest pairs first.

    Args:
        cost: float32 (B, Q, G), inf where there is no object.
        rounds: Queries per object.

    Returns:
        int64 (B, Q), the object of each query or -1.
    """
    cost = cost.clone()
    count, queries_, objects = cost.shape
    owner = torch.full((count, queries_), -1)
    left = torch.full((count, objects), rounds)
    rows = torch.arange(count)
    for _ in range(rounds * objects):
        cheapest, place = cost.flatten(1).min(dim=1)
        query, chosen = place // objects, place % objects
        good = torch.isfinite(cheapest)
        owner[rows[good], query[good]] = chosen[good]
        cost[rows[good], query[good]] = torch.inf
        left[rows[good], chosen[good]] -= 1
        cost.masked_fill_((left == 0)[:, None], torch.inf)
    return owner


def set_loss(logits: Tensor, boxes: Tensor, batch: Batch, rounds: int) -> Tensor:
    """Return the loss of one layer's answers.

    Args:
        logits: float32 (B, Q, T).
        boxes: float32 (B, Q, 4), cxcywh in 0..1.
        batch: The right answers.
        rounds: Queries per object.
    """
    padding = batch.attention_mask[:, None] == 0
    logits = logits[..., : padding.shape[-1]].masked_fill(padding, -20.0)
    owner = assign(matching_cost(logits, boxes, batch), rounds)
    taken = owner >= 0
    index = owner.clamp(min=0)[..., None]
    wanted = batch.tokens.gather(1, index.expand(-1, -1, batch.tokens.shape[-1]))
    wanted = wanted * taken[..., None]
    count = taken.sum().clamp(min=1)
    words = focal_loss(logits, wanted).masked_fill(padding, 0).sum() / count
    ours, theirs = boxes[taken], batch.boxes.gather(1, index.expand(-1, -1, 4))[taken]
    distance = (ours - theirs).abs().sum() / count
    overlap = generalized_box_iou_loss(_corners(ours), _corners(theirs), reduction="sum") / count
    return 2 * words + 5 * distance + 2 * overlap


def total_loss(trainee: Trainee, batch: Batch, scenes: list[Scene], progress: float) -> Tensor:
    """Return the loss of the proposals, of every decoder layer, and of the auxiliary task."""
    detector = trainee.detector
    out = detector.model(batch.pixels, batch.input_ids, attention_mask=batch.attention_mask)
    proposals = out.enc_outputs_coord_logits.sigmoid()
    loss = set_loss(out.enc_outputs_class, proposals, batch, _PROPOSALS_PER_OBJECT)
    references = [out.init_reference_points, *out.intermediate_reference_points.unbind(1)]
    for layer, hidden in enumerate(out.intermediate_hidden_states.unbind(1)):
        logits = detector.class_embed[layer](
            hidden, out.encoder_last_hidden_state_text, batch.attention_mask.bool()
        )
        shift = detector.bbox_embed[layer](hidden)
        boxes = (shift + torch.special.logit(references[layer], eps=1e-5)).sigmoid()
        loss = loss + set_loss(logits, boxes, batch, 1)
    grid = batch.pixels.shape[-1] // _FINE_STRIDE
    fine = out.encoder_last_hidden_state_vision[:, : grid * grid].unflatten(1, (grid, grid))
    return loss + max(0.0, 1 - progress / 0.8) * trainee.dense.loss(fine, scenes)


def loss(model: nn.Module, rng: np.random.Generator, progress: float) -> Tensor:
    """Return the loss on a fresh batch of scenes, given the share of the training done.

    The first 60 % run on smaller pictures, which is a third cheaper and teaches the words as well.
    """
    assert isinstance(model, Trainee)
    size = SMALL_SIZE if progress < 0.6 else IMAGE_SIZE
    scenes = [make_scene(rng, size) for _ in range(BATCH)]
    asked = [queries(scene, PHRASES, int(rng.integers(1, 5)), rng) for scene in scenes]
    batch = make_batch(scenes, asked, model.tokenizer)
    return total_loss(model, batch, scenes, progress)


def save(model: nn.Module, folder: Path) -> None:
    """Write the detector (fp16) and its processor as `from_pretrained` reads them."""
    assert isinstance(model, Trainee)
    save_half(model.detector, make_processor(), folder)


@torch.no_grad()
def evaluate(model: nn.Module, scenes: int) -> dict[str, float]:
    """Return how often the best box of a phrase is right, and the mean scores of phrases.

    "top1" is the share of present phrases whose best box has an IoU over .5 with an object meant.
    """
    assert isinstance(model, Trainee)
    hits, present, absent = [], [], []
    for i in range(scenes):
        rng = np.random.default_rng((90_000, i))
        scene = make_scene(rng, IMAGE_SIZE, held_out=True)
        asked = queries(scene, 6, 3, rng)
        batch = make_batch([scene], [asked], model.tokenizer)
        out = model.detector(batch.pixels, batch.input_ids, attention_mask=batch.attention_mask)
        boxes = _corners(out.pred_boxes[0]) * IMAGE_SIZE
        for query, place in zip(asked, _caption(asked, model.tokenizer)[1], strict=True):
            score, best = out.logits[0, :, place].sigmoid().amax(dim=-1).max(dim=0)
            if not query.members.any():
                absent.append(score.item())
                continue
            meant = torch.from_numpy(scene.boxes[query.members])
            hits.append((box_iou(boxes[best][None], meant).max() > 0.5).item())
            present.append(score.item())
    names = ("top1", "score_present", "score_absent")
    return {
        k: round(float(np.mean(v)), 4) for k, v in zip(names, (hits, present, absent), strict=True)
    }
