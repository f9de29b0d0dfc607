"""GroundingDINO at demo size: transformers' classes, their start, the loss, held-out metrics.

Liu et al. 2023, "Grounding DINO", https://arxiv.org/abs/2303.05499. The loss that comes with
transformers is for fine-tuning (its proposals get no gradient), so here is one that trains from
scratch: `set_loss` with four queries per object, on the encoder's proposals and on each decoder
layer. As the official model starts from a Swin and a BERT that were trained before, this one starts
from those of the demo GLIP, so train that first.
"""

import copy
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_convert, box_iou
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    SwinConfig,
)

from grounding.demo.calibration import calibration_scenes, fit_sigmoid, held_out_scenes, summary
from grounding.demo.dense import DenseHead
from grounding.demo.pretrained import save_half
from grounding.demo.scenes import (
    MAX_OBJECTS,
    Query,
    Scene,
    captions,
    make_scene,
    normalise,
    queries,
)
from grounding.demo.set_loss import Batch, corners, set_loss
from grounding.demo.tokenizers import bert_vocabulary, make_bert_tokenizer
from grounding.grounders.glip.checkpoint import read_model
from grounding.weights import DEMO_ROOT

LEARNING_RATE = 8e-4
BATCH = 8
IMAGE_SIZE = 192
SMALL_SIZE = 160
WIDTH = 128
# The page starts its threshold at .3. An even chance lies well above, so that second things of a
# kind, of which the model is less sure, are found; nine of ten absent phrases still give nothing.
EVEN_SCORE = 0.55
CALIBRATION_SCENES = 150
_FINE_STRIDE = 8
# The grounder drops double boxes anyway. With one query per object, as in the paper, a small model
# learns to leave out doubles and with them the second and third of several things of a kind.
_QUERIES_PER_OBJECT = 4


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
        depths=[2, 2, 2, 1],
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
    _take_towers(model, DEMO_ROOT / "glip")
    return trainee


def _take_towers(model: nn.Module, folder: Path) -> None:
    """Copy the backbone and the text encoder of a demo GLIP, which looks at BGR pictures."""
    glip = read_model(folder)
    colours = glip.swin.swin.embeddings.patch_embeddings.projection.weight
    colours.copy_(colours.flip(1))
    backbone = model.backbone.conv_encoder.model
    backbone.load_state_dict(glip.swin.state_dict(), strict=False)  # a classifier's norm is unused
    model.text_backbone.load_state_dict(glip.bert.state_dict())


def make_processor() -> GroundingDinoProcessor:
    """Return the stock processor: every picture becomes a square."""
    square = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    images = GroundingDinoImageProcessor(size=square, do_pad=False)
    return GroundingDinoProcessor(images, make_bert_tokenizer())


def _caption(asked: list[Query], tokenizer: BertTokenizer) -> tuple[list[int], list[slice]]:
    """Return the ids of "phrase. phrase." and where each phrase is, as the stock processor does."""
    ids, places, stop = [tokenizer.cls_token_id], [], tokenizer.convert_tokens_to_ids(".")
    for query in asked:
        words = tokenizer(query.phrase, add_special_tokens=False)["input_ids"]
        places.append(slice(len(ids), len(ids) + len(words)))
        ids += [*words, stop]
    return [*ids, tokenizer.sep_token_id], places


def make_batch(scenes: list[Scene], asked: list[list[Query]], tokenizer: BertTokenizer) -> Batch:
    """Put scenes and what is asked of each into tensors."""
    encoded = [_caption(one, tokenizer) for one in asked]
    count, longest = len(scenes), max(len(ids) for ids, _ in encoded)
    input_ids = torch.zeros(count, longest, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    boxes = torch.full((count, MAX_OBJECTS, 4), 0.5)
    tokens = torch.zeros(count, MAX_OBJECTS, longest)
    for i, (ids, places) in enumerate(encoded):
        input_ids[i, : len(ids)] = torch.tensor(ids)
        attention_mask[i, : len(ids)] = 1
        size, objects = scenes[i].image.shape[0], len(scenes[i].names)
        boxes[i, :objects] = box_convert(torch.from_numpy(scenes[i].boxes), "xyxy", "cxcywh") / size
        for query, place in zip(asked[i], places, strict=True):
            for member in np.flatnonzero(query.members):
                tokens[i, member, place] = 1
    pixels = torch.from_numpy(normalise(scenes))
    return Batch(pixels, input_ids, attention_mask, boxes, tokens, tokens.sum(-1) > 0)


def total_loss(trainee: Trainee, batch: Batch, scenes: list[Scene], progress: float) -> Tensor:
    """Return the loss of the proposals, of every decoder layer, and of the auxiliary task."""
    detector = trainee.detector
    out = detector.model(batch.pixels, batch.input_ids, attention_mask=batch.attention_mask)
    proposals = out.enc_outputs_coord_logits.sigmoid()
    loss = set_loss(out.enc_outputs_class, proposals, batch, _QUERIES_PER_OBJECT)
    references = [out.init_reference_points, *out.intermediate_reference_points.unbind(1)]
    for layer, hidden in enumerate(out.intermediate_hidden_states.unbind(1)):
        logits = detector.class_embed[layer](
            hidden, out.encoder_last_hidden_state_text, batch.attention_mask.bool()
        )
        shift = detector.bbox_embed[layer](hidden)
        boxes = (shift + torch.special.logit(references[layer], eps=1e-5)).sigmoid()
        loss = loss + set_loss(logits, boxes, batch, _QUERIES_PER_OBJECT)
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
    asked = captions(scenes, rng)
    batch = make_batch(scenes, asked, model.tokenizer)
    return total_loss(model, batch, scenes, progress)


def _answers(
    trainee: Trainee, scene: Scene, asked: list[Query]
) -> list[tuple[Query, Tensor, Tensor]]:
    """Return each query with the score logits (Q,) and the xyxy boxes (Q, 4) of all boxes."""
    batch = make_batch([scene], [asked], trainee.tokenizer)
    out = trainee.detector(batch.pixels, batch.input_ids, attention_mask=batch.attention_mask)
    boxes = corners(out.pred_boxes[0]) * IMAGE_SIZE
    places = _caption(asked, trainee.tokenizer)[1]
    return [
        (query, out.logits[0, :, place].amax(dim=-1), boxes)
        for query, place in zip(asked, places, strict=True)
    ]


def _is_right(box: Tensor, scene: Scene, query: Query) -> bool:
    """Return whether a box (4,) has an IoU over .5 with an object meant."""
    meant = torch.from_numpy(scene.boxes[query.members])
    return bool((box_iou(box[None], meant) > 0.5).any())


@torch.no_grad()
def judged_boxes(
    trainee: Trainee, scenes: Iterable[tuple[Scene, list[Query]]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logit of each phrase's best box, whether it is right, and whether one could be."""
    logits, right, there = [], [], []
    for scene, asked in scenes:
        for query, scores, boxes in _answers(trainee, scene, asked):
            best = scores.argmax()
            logits.append(scores[best])
            right.append(_is_right(boxes[best], scene, query))
            there.append(bool(query.members.any()))
    return torch.stack(logits), torch.tensor(right), torch.tensor(there)


@torch.no_grad()
def nearly_constant(trainee: Trainee) -> float:
    """Return the mean of the decoder's dimension 0, which training moves away from its start."""
    rng = np.random.default_rng(80_000)
    scenes = [make_scene(rng, IMAGE_SIZE) for _ in range(16)]
    batch = make_batch(scenes, [queries(scene, 1, 0, rng) for scene in scenes], trainee.tokenizer)
    out = trainee.detector(batch.pixels, batch.input_ids, attention_mask=batch.attention_mask)
    return out.intermediate_hidden_states[:, -1, :, 0].mean().item()


@torch.no_grad()
def rescale_scores(
    detector: GroundingDinoForObjectDetection, scale: float, shift: float, constant: float
) -> None:
    """Make every score logit `scale` * logit + `shift`, by the weights alone.

    The logits are products with the last text features, so those are scaled; the dimension that is
    `constant` in the decoder takes the shift; what else reads the text features is scaled back.
    """
    text_norm = detector.model.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    text_norm.weight.mul_(scale)
    text_norm.bias.mul_(scale)
    text_norm.bias[0] += shift / constant
    for layer in detector.model.decoder.layers:
        for reader in (layer.encoder_attn_text.key, layer.encoder_attn_text.value):
            reader.weight.div_(scale)
            reader.bias.sub_(reader.weight[:, 0] * shift / constant)


def save(model: nn.Module, folder: Path) -> None:
    """Write the detector (fp16) and its processor as `from_pretrained` reads them."""
    assert isinstance(model, Trainee)
    detector = copy.deepcopy(model.detector)
    logits, right, _ = judged_boxes(model, calibration_scenes(CALIBRATION_SCENES, IMAGE_SIZE))
    scale, shift = fit_sigmoid(logits, right, even=EVEN_SCORE)
    rescale_scores(detector, scale, shift, nearly_constant(model))
    save_half(detector, make_processor(), folder)


def load(folder: Path) -> Trainee:
    """Return the model that `save` wrote, to be trained on."""
    trainee = build()
    stock = GroundingDinoForObjectDetection
    trainee.detector = stock.from_pretrained(folder, dtype=torch.float32).train()
    return trainee


@torch.no_grad()
def evaluate(model: nn.Module, scenes: int) -> dict[str, float]:
    """Return the `summary` of the best boxes on held-out scenes."""
    assert isinstance(model, Trainee)
    logits, right, there = judged_boxes(model, held_out_scenes(scenes, IMAGE_SIZE))
    return summary(right[there], logits[there], logits[~there])
