"""What the ViT tab shows of one picture: from an answer and some settings to maps and pictures.

Nothing here needs another forward pass. torch is imported with the first picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from vit.confusion import short
from vit.heatmap import inset, overlay

if TYPE_CHECKING:
    from torch import Tensor

    from vit.predictor import Prediction, Predictor

SIDE = 448  # of the shown pictures, in pixels
WHOLE = 640  # longer side of the whole picture, in pixels
ROLLOUT, LAYER = "Attention rollout", "Attention of one layer"
GRADIENT, CHEFER = "Gradient-weighted rollout", "Transformer attribution"
METHODS = {
    ROLLOUT: """Multiplies the attention of the chosen layers, residual connections included, and
shows how much of each patch has reached what the answer is read from: the class token (with a
distillation token, both) or, in a model without one, all patches, each as much, whatever weights
sequence pooling has learned. It is the same for every class.""",
    LAYER: """Shows where one layer looks, as it is: the attention of what the answer is read from,
the class token or, in a model without one, all patches. It is the same for every class.""",
    GRADIENT: """Is attention rollout of only that attention which raises the score of the chosen
class: attention times gradient, where that is positive.""",
    CHEFER: """Adds up, layer by layer, the attention that raises the score of the chosen class:
the rule for self-attention of Chefer, Gur and Wolf (ICCV 2021).""",
}
CLASS_METHODS = {GRADIENT: "Gradients", CHEFER: "Attribution"}  # and what a title calls them
BEST, SECOND = "the answer", "the second guess"  # in the place of a class
NO_ANSWER = "There is no answer here, or no longer: choose a picture, maybe the same one again."
NOTHING = "nothing"  # in the place of a method to compare with


@dataclass(frozen=True)
class Look:
    """Hold what a session looks at.

    Attributes:
        predictor: Which gave the answer.
        prediction: The answer.
        picture: The whole RGB picture.
    """

    predictor: "Predictor"
    prediction: "Prediction"
    picture: Image.Image

    @property
    def is_part(self) -> bool:
        """Tell whether the model sees only a part of the picture, or could be made to."""
        width, height = self.picture.size
        whole = self.prediction.box == (0, 0, width, height)
        return not whole or width > self.prediction.seen.width


@dataclass(frozen=True)
class Settings:
    """Hold how a map is made.

    Attributes:
        method: A key of `METHODS`.
        label: A class, `BEST` or `SECOND`; only the methods in `CLASS_METHODS` depend on it.
        head_fusion: Of attention rollout: a key of `vit.rollout.HEAD_FUSIONS`.
        discard_ratio: Of attention rollout, in [0, 1).
        first: The layer to start with, counted from 1; of all methods but `LAYER`.
        last: The layer to end with. One that the model does not have means its last.
        layer: The layer of `LAYER`.
        head: The head of `LAYER`; 0 is the mean of all.
    """

    method: str = ROLLOUT
    label: str = BEST
    head_fusion: str = "mean"
    discard_ratio: float = 0.0
    first: int = 1
    last: int = 1000
    layer: int = 1
    head: int = 0


def class_name(prediction: "Prediction", label: str) -> str:
    """Return the class that `label` means; what the model does not know means its answer.

    (A choice for one checkpoint may still stand when the next has come.)
    """
    ranked = sorted(prediction.probabilities, key=prediction.probabilities.__getitem__)
    if label == SECOND:
        return ranked[-2:][0]
    return label if label in ranked else ranked[-1]


def relevance(look: Look, settings: Settings) -> "Tensor":
    """Return what reached every token by the chosen method: float (1, N, N).

    Raises:
        ValueError: If a setting is none that its method takes.
    """
    from vit import attribution, rollout

    attentions, prefix = look.prediction.attentions, look.prediction.config.num_prefix_tokens
    if settings.method == LAYER:
        layer, head = _layer_and_head(look, settings)
        return attribution.raw_attention(attentions, layer, head or None)
    depth = len(attentions)
    first, last = sorted((min(settings.first, depth), min(settings.last, depth)))
    chosen = attentions[first - 1 : last]
    if settings.method == ROLLOUT:
        fusion, ratio = settings.head_fusion, settings.discard_ratio
        return rollout.attention_rollout(chosen, fusion, ratio, prefix)
    label = list(look.prediction.probabilities).index(class_name(look.prediction, settings.label))
    gradients = look.predictor.gradients(look.prediction, label)[first - 1 : last]
    if settings.method == GRADIENT:
        return attribution.gradient_rollout(chosen, gradients)
    return attribution.transformer_attribution(chosen, gradients)


def _layer_and_head(look: Look, settings: Settings) -> tuple[int, int]:
    """Return those of `LAYER`; what the model does not have means its last."""
    depth, _, heads = look.prediction.attentions.shape[:3]
    return min(settings.layer, depth), min(settings.head, heads)


def heat_map(look: Look, settings: Settings) -> "Tensor":
    """Return the map of the chosen method: float (g, g) in [0, 1].

    Raises:
        ValueError: If a setting is none that its method takes.
    """
    from vit.rollout import attention_map

    config = look.prediction.config
    return attention_map(relevance(look, settings), config.grid_size, config.num_prefix_tokens)[0]


def explain(look: Look, settings: Settings) -> Image.Image:
    """Lay the map over the part of the picture that the model saw."""
    square = look.picture.crop(look.prediction.box)
    return overlay(square, heat_map(look, settings).numpy(), SIDE)


def explain_whole(look: Look, settings: Settings) -> Image.Image:
    """Show the whole picture, with the map over the part that the model saw."""
    heat = heat_map(look, settings).numpy()
    return inset(look.picture, look.prediction.box, heat, WHOLE)


def title(look: Look, settings: Settings, shown: Sequence[Settings] = ()) -> str:
    """Say what a map shows and, if of those `shown` another has another method, by which one."""
    if settings.method in CLASS_METHODS:
        name = short(class_name(look.prediction, settings.label))
        several = len({each.method for each in shown} & CLASS_METHODS.keys()) > 1
        return f"{CLASS_METHODS[settings.method]} for {name}" if several else f"For {name}"
    if settings.method == LAYER:
        layer, head = _layer_and_head(look, settings)
        return f"Layer {layer}, head {head}" if head else f"Layer {layer}"
    return "Where it looked"
