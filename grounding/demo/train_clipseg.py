"""CLIPSeg at demo size: transformers' classes, their start, the loss, held-out metrics.

Lüddecke and Ecker 2021, "Image Segmentation Using Text and Image Prompts",
https://arxiv.org/abs/2112.10003; there CLIP is pre-trained and frozen, here everything is trained
together, from nothing.
"""

import copy
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    CLIPTokenizer,
    ViTImageProcessor,
)

from grounding.demo.calibration import held_out_scenes
from grounding.demo.dense import DenseHead
from grounding.demo.pretrained import save_half
from grounding.demo.scenes import (
    MEAN,
    STD,
    Query,
    Scene,
    lookalike_query,
    make_scene,
    normalise,
    queries,
)
from grounding.demo.tokenizers import MAX_CLIP_TOKENS, make_clip_tokenizer
from grounding.grounders import GROUNDERS

LEARNING_RATE = 1e-3
BATCH = 8
IMAGE_SIZE = 256
PATCH = 16
WIDTH = 192
TEXT_WIDTH = 128
PHRASES, ABSENT = 7, 3
CALIBRATION_SCENES = 150
# Which share of absent phrases stays below the threshold that the page starts with. A few more give
# nothing: spots of under .2 % of the picture do not count.
QUIET = 0.88
FOREGROUND_WEIGHT = 4.0
# Masks are compared at half the size: the outline is the segmenter's business.
_REDUCTION = 2
_HOTTEST = 32
Answers = list[tuple[Query, np.ndarray]]
# On a CPU the gradient of torch's fused attention is slower than that of plain products.
_ATTENTION = "eager"


class Trainee(nn.Module):
    """The model and what only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer: CLIPTokenizer = make_clip_tokenizer()
        self.segmenter = CLIPSegForImageSegmentation(_config(self.tokenizer))
        self.segmenter.set_attn_implementation(_ATTENTION)
        self.dense = DenseHead(WIDTH)


def _config(tokenizer: CLIPTokenizer) -> CLIPSegConfig:
    """Return the stock architecture, small."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 2 * TEXT_WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_CLIP_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH,
    }
    return CLIPSegConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=TEXT_WIDTH,
        extract_layers=[1, 3, 5],
        reduce_dim=96,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=192,
        use_complex_transposed_convolution=True,
    )


def build() -> Trainee:
    """Return the untrained model.

    The stock start of the decoder has a deviation of 1 in every layer, which puts the logits near
    500: its layers go back to torch's own start, and the last bias to a prior of about 10 %.
    """
    trainee = Trainee()
    decoder = trainee.segmenter.decoder
    for module in decoder.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            module.reset_parameters()
    nn.init.constant_(decoder.transposed_convolution[-1].bias, -2.0)
    # FiLM starts as the identity; a random start multiplies the picture by noise.
    nn.init.constant_(decoder.film_mul.bias, 1.0)
    return trainee


def make_processor() -> CLIPSegProcessor:
    """Return the stock processor: every picture becomes a square."""
    images = ViTImageProcessor(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, image_mean=MEAN, image_std=STD
    )
    return CLIPSegProcessor(images, make_clip_tokenizer())


def predict(
    trainee: Trainee, pixels: Tensor, phrases: list[str], owners: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the logits of phrases, each about one of the pictures.

    The stock `forward` runs the CLIP towers without gradients, so this calls its parts.

    Args:
        trainee: What `build` returns.
        pixels: float32 (B, 3, S, S).
        phrases: P phrases.
        owners: int64 (P,), the picture of each phrase.

    Returns:
        Logits float32 (P, S, S), and the last features float32 (B, grid, grid, WIDTH).
    """
    segmenter = trainee.segmenter
    text = trainee.tokenizer(phrases, padding=True, truncation=True, return_tensors="pt")
    condition = segmenter.clip.get_text_features(**text).pooler_output
    vision = segmenter.clip.vision_model(pixels, output_hidden_states=True)
    levels = [vision.hidden_states[i + 1] for i in segmenter.extract_layers]
    logits = segmenter.decoder(tuple(level[owners] for level in levels), condition).logits
    grid = IMAGE_SIZE // PATCH
    return logits, levels[-1][:, 1:].unflatten(1, (grid, grid))


def mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return weighted BCE, dice on the masks that are not empty, and BCE of the presence.

    Presence is what the hottest pixels say: one stray spot makes an absent phrase a find, yet
    hardly shows in a mean over all pixels.

    Args:
        logits: float32 (P, S, S).
        targets: float32 (P, S, S) in {0, 1}, some of them empty.
    """
    logits, targets = (F.avg_pool2d(masks, _REDUCTION) for masks in (logits, targets))
    weight = torch.tensor(FOREGROUND_WEIGHT)
    bce = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)
    probability = logits.sigmoid()
    area = targets.sum((-2, -1))
    overlap = 2 * (probability * targets).sum((-2, -1)) + 1
    dice = 1 - overlap / (probability.sum((-2, -1)) + area + 1)
    hottest = logits.flatten(1).topk(_HOTTEST).values.mean(dim=1)
    presence = F.binary_cross_entropy_with_logits(hottest, (area > 0).float())
    return 2 * bce + dice[area > 0].mean() + presence


def loss(model: nn.Module, rng: np.random.Generator, progress: float) -> Tensor:
    """Return the loss on a fresh batch of scenes, given the share of the training done."""
    assert isinstance(model, Trainee)
    scenes = [make_scene(rng, IMAGE_SIZE) for _ in range(BATCH)]
    asked = [queries(scene, PHRASES, ABSENT, rng, lookalike_query) for scene in scenes]
    owners = torch.tensor([i for i, found in enumerate(asked) for _ in found])
    pairs = [(scene, query) for scene, found in zip(scenes, asked, strict=True) for query in found]
    targets = np.stack([scene.masks[query.members].any(axis=0) for scene, query in pairs])
    phrases = [query.phrase for _, query in pairs]
    logits, features = predict(model, torch.from_numpy(normalise(scenes)), phrases, owners)
    fade = max(0.0, 1 - progress / 0.8)
    return mask_loss(logits, torch.from_numpy(targets).float()) + fade * model.dense.loss(
        features, scenes
    )


def _answers(trainee: Trainee, scene: Scene, asked: list[Query]) -> Answers:
    """Return the logits of what is asked of a scene, an array (S, S) each."""
    owners = torch.zeros(len(asked), dtype=torch.long)
    phrases = [query.phrase for query in asked]
    logits, _ = predict(trainee, torch.from_numpy(normalise([scene])), phrases, owners)
    return list(zip(asked, logits.numpy(), strict=True))


@torch.no_grad()
def _quiet_peak(trainee: Trainee) -> float:
    """Return the logit that no pixel reaches for the share `QUIET` of what is not there."""
    peaks = []
    for i in range(CALIBRATION_SCENES):
        rng = np.random.default_rng((80_000, i))
        scene = make_scene(rng, IMAGE_SIZE)
        answers = _answers(trainee, scene, queries(scene, 6, 3, rng))
        peaks += [logits.max() for query, logits in answers if not query.members.any()]
    return float(np.quantile(peaks, QUIET))


def save(model: nn.Module, folder: Path) -> None:
    """Write the model (fp16) and its processor as `from_pretrained` reads them.

    Its maps are shifted as a whole, so that the page's first threshold suits them.
    """
    assert isinstance(model, Trainee)
    segmenter = copy.deepcopy(model.segmenter)
    threshold = GROUNDERS["CLIPSeg"].threshold
    shift = math.log(threshold / (1 - threshold)) - _quiet_peak(model)
    segmenter.decoder.transposed_convolution[-1].bias.data.add_(shift)
    save_half(segmenter, make_processor(), folder)


def load(folder: Path) -> Trainee:
    """Return the model that `save` wrote, to be trained on."""
    trainee = build()
    stock = CLIPSegForImageSegmentation
    trainee.segmenter = stock.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=_ATTENTION
    ).train()
    return trainee


@torch.no_grad()
def evaluate(model: nn.Module, scenes: int) -> dict[str, float]:
    """Return the mean IoU at .5, and the share of absent phrases that light nothing up.

    "pointing" is the share of present phrases whose hottest pixel is on an object meant.
    """
    assert isinstance(model, Trainee)
    ious, pointing, quiet = [], [], []
    for scene, asked in held_out_scenes(scenes, IMAGE_SIZE):
        for query, found in _answers(model, scene, asked):
            if not query.members.any():
                quiet.append(not (found > 0).any())
                continue
            target = scene.masks[query.members].any(axis=0)
            ious.append((target & (found > 0)).sum() / (target | (found > 0)).sum())
            pointing.append(target.flat[found.argmax()])
    names = ("iou", "pointing", "absent_quiet")
    return {
        k: round(float(np.mean(v)), 4) for k, v in zip(names, (ious, pointing, quiet), strict=True)
    }
