"""What happens when somebody chooses, moves or presses something on the ViT tab."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

from common.images import open_image
from vit.arrays import save_arrays
from vit.crop import Crop, crop_around
from vit.describe import describe_answer, describe_checkpoint
from vit.facts import read_facts
from vit.heatmap import enlarge
from vit.samples import Sample, mistakes
from vit.view import (
    BEST,
    NO_ANSWER,
    NOTHING,
    SECOND,
    SIDE,
    WHOLE,
    Look,
    Settings,
    explain,
    explain_whole,
    title,
)
from web.page import choice_of, new_folder, page_errors, warn
from web.repairs import refuse_clamped

if TYPE_CHECKING:
    from vit.predictor import Predictor

KEPT = 3  # checkpoints in memory
ALL = "all classes"
CENTRE = Crop()

CHOOSE = "Choose a picture first: pick one, or upload, paste or take one."

FindCheckpoints = Callable[[], dict[str, Path]]


class Events:
    """Answer the events; a model is loaded when it is first asked for."""

    def __init__(self, find: FindCheckpoints, samples: Sequence[Sample]) -> None:
        """Take what `build_tab` explains, and find the checkpoints."""
        self.find, self.samples, self.checkpoints = find, samples, find()
        # A crop that moves reads the same picture again and again.
        self.open_image = lru_cache(maxsize=2)(open_image)
        self._load = lru_cache(maxsize=KEPT)(self._predictor)
        self.truths = {(s.picture.size, s.picture.tobytes()): s.label for s in samples}

    def _predictor(self, path: Path, _changed: int) -> "Predictor":
        from vit.predictor import Predictor

        return Predictor(path)

    def load(self, name: str | None) -> "Predictor":
        """Return what answers with a checkpoint; a training run may write its file anew.

        Raises:
            ValueError: If there is none of that name, or it cannot be read.
        """
        path = self.path(name)
        try:
            return self._load(path, path.stat().st_mtime_ns if path.exists() else 0)
        except ValueError as error:  # it names folders of the server
            print(f"Cannot load {name}: {error}")
            raise ValueError(
                f"The checkpoint {name} cannot be read; the console says why."
            ) from error

    def refresh(self) -> gr.Dropdown:
        """Find the checkpoints again when a page opens: one may have been trained meanwhile."""
        with page_errors():
            self.checkpoints = self.find()
        return gr.Dropdown(list(self.checkpoints), value=next(iter(self.checkpoints), None))

    def path(self, name: str | None) -> Path:
        """Return where a checkpoint is.

        Raises:
            ValueError: If there is none of that name.
        """
        if name not in self.checkpoints:
            self.checkpoints = self.find()  # it may have been trained since
        if not self.checkpoints:
            raise ValueError("There is no checkpoint yet: train_vit.py makes one.")
        if name is None:
            raise ValueError("Choose a checkpoint: reload the page for those that are there now.")
        if name not in self.checkpoints:
            raise ValueError(f"checkpoint is {name!r}; choose one of {list(self.checkpoints)}")
        return self.checkpoints[name]

    def facts(self, name: str | None) -> dict[str, Any]:
        """Return what a checkpoint says of itself.

        Raises:
            ValueError: If there is none of that name, or none any more.
        """
        path = self.path(name)
        if (facts := read_facts(path)) is None:
            raise ValueError(f"{name} is not a checkpoint of train_vit.py any more.")
        return facts

    def first_look(self, image: str | None, name: str | None, crop: Crop) -> tuple[Look, str]:
        """Open and classify a picture; return the answer and what to say of it.

        Raises:
            ValueError: If there is no picture or no checkpoint, or one cannot be read.
        """
        if not image:
            raise ValueError(CHOOSE)
        picture, predictor = self.open_image(image), self.load(name)
        seen = Look(predictor, predictor.predict(picture, crop), picture)
        middle = seen.prediction.box == CENTRE.box(picture.size)
        truth = self.truths.get((picture.size, picture.tobytes())) if middle else None
        text = describe_answer(seen.prediction, truth, picture.size)
        return seen, f"{text}\n\n{describe_checkpoint(name or '', self.facts(name))}"

    def classify(
        self,
        image: str | None,
        head_fusion: str,
        discard_ratio: float,
        checkpoint: str | None,
        across: float,
        down: float,
        size: float,
    ) -> tuple[dict[str, float], Image.Image, Image.Image, str]:
        """Classify a picture with the Vision Transformer and show where it looked.

        Args:
            image: The picture, for MCP as a data: URL.
            head_fusion: How the heads of a layer are fused: mean, max or min.
            discard_ratio: Share of patches left out in a layer, least attended first, 0 to 0.95.
            checkpoint: Name of the checkpoint that answers.
            across: Where the square lies that the model sees, from 0 (left) to 1 (right).
            down: The same from 0 (top) to 1 (bottom).
            size: Side of the square as a share of the shorter side of the picture, from 0.1 to 1.

        Returns:
            the five largest probabilities
            the rollout over the square
            what the model saw
            a text
        """
        with page_errors():
            refuse_clamped(discard_ratio=discard_ratio, across=across, down=down, size=size)
            seen, text = self.first_look(image, checkpoint, Crop(across, down, size))
            shown = explain(seen, Settings(head_fusion=head_fusion, discard_ratio=discard_ratio))
        return seen.prediction.probabilities, shown, enlarge(seen.prediction.seen, SIDE), text

    def look(self, image: str | None, name: str | None, *asked: Any) -> tuple[Any, ...]:
        """Look at another part or with another checkpoint; what was seen stays if that fails."""
        try:
            return self._look(image, name, *asked)
        except gr.Error as error:
            warn(error)
            return (gr.skip(),) * len(nothing(""))

    def _look(
        self,
        image: str | None,
        name: str | None,
        across: float,
        down: float,
        size: float,
        *settings: Any,
    ) -> tuple[Any, ...]:
        """Classify for the page and draw; whether there is a part to choose is said, too."""
        if not image:
            return nothing(CHOOSE)
        with page_errors():
            seen, text = self.first_look(image, name, Crop(across, down, size))
        choice = gr.Column(visible=seen.is_part)
        return seen, seen.prediction.probabilities, text, choice, *draw(seen, *settings)

    def redraw(
        self, look: Look | None, image: str | None, name: str | None, *asked: Any
    ) -> tuple[Any, ...]:
        """Draw what was seen in another way; look again where the server has forgotten it.

        (The panels then wait for the next picture, part or checkpoint.)

        Args:
            look: What was seen.
            image: The picture.
            name: Of the checkpoint.
            asked: The crop (across, down, size), then the settings.
        """
        if look is None:
            return self.look(image, name, *asked)
        return *(gr.skip(),) * 4, *draw(look, *asked[3:])

    def begin(self, image: str | None, name: str | None, *settings: Any) -> tuple[Any, ...]:
        """Let the model see the middle of a new picture; the answer before it goes in any case."""
        crop = CENTRE.across, CENTRE.down, CENTRE.size
        try:
            return *crop, *self._look(image, name, *crop, *settings)
        except gr.Error as error:
            warn(error)
            return *crop, *nothing(error.message)

    def forget_if_gone(self, image: str | None) -> tuple[Any, ...]:
        """Take the answer away if its picture is not there any more."""
        forgotten = (*nothing(CHOOSE), gr.Gallery(selected_index=None))
        return (gr.skip(),) * len(forgotten) if image else forgotten

    def choose(self, name: str | None) -> tuple[Any, ...]:
        """Adapt the settings to another checkpoint."""
        with page_errors():
            facts = self.facts(name)
        depth, heads = facts["config"]["depth"], facts["config"]["num_heads"]
        first, last = choice_of(depth, 1), choice_of(depth, depth)
        classes = [BEST, SECOND, *facts["classes"]]
        return (
            gr.Dropdown(classes, value=BEST),
            gr.Dropdown(classes, value=SECOND),
            first,
            last,
            last,
            gr.Slider(maximum=heads, value=0),
            last,
        )

    def browse(self, name: str | None, label: str, wrong: bool) -> tuple[Any, list[int], str]:
        """Return the samples of one class or all, or those the model gets wrong."""
        captions = {i: s.label for i, s in enumerate(self.samples) if label in (ALL, s.label)}
        with page_errors():
            classes = self.facts(name)["classes"]
        known = sum(caption in classes for caption in captions.values())
        if wrong:
            found = self.mistakes(name)
            captions = {i: f"{c} → {found[i]}" for i, c in captions.items() if i in found}
        pictures = [(self.samples[i].picture, caption) for i, caption in captions.items()]
        heading = say_count(len(captions), known if wrong else len(self.samples), known)
        gallery = gr.Gallery(pictures, selected_index=None, visible=bool(pictures))
        return gallery, list(captions), heading

    def mistakes(self, name: str | None) -> dict[int, str]:
        """Return the wrong answers of a checkpoint by the index of their sample."""
        with page_errors():
            predictor = self.load(name)
            answers = predictor.answers([sample.picture for sample in self.samples])
        return mistakes(self.samples, answers, predictor.checkpoint.classes)

    def pick_sample(self, chosen: list[int], marked: float) -> Any:
        """Return the sample that is marked, if one still is: others may have come meanwhile."""
        if not 0 <= marked < len(chosen):
            return gr.skip()
        return self.samples[chosen[int(marked)]].picture

    def pack(self, look: Look | None, *values: Any) -> str:
        """Write the NPZ and return its path."""
        with page_errors():
            if look is None:
                raise ValueError(NO_ANSWER)
            return str(save_arrays(look, shown(*values), new_folder()))


def say_count(found: int, count: int, known: int) -> str:
    """Say above the samples how many of them are shown.

    Args:
        found: How many are shown.
        count: Of how many.
        known: How many of those looked through are of a class that the model knows.

    >>> say_count(3, 30, known=3)
    '**Pick a CIFAR-10 test picture** (3 of 30), shown with its true label:'
    >>> say_count(0, 30, known=30)
    '**No mistakes** among these pictures (0 of 30).'
    >>> say_count(30, 30, known=0)
    '**None of these pictures** is of a class that this model knows; bring one of your own.'
    """
    if not known:
        return (
            "**None of these pictures** is of a class that this model knows; bring one of your own."
        )
    if not found:
        return f"**No mistakes** among these pictures (0 of {count})."
    part = "" if found == count else f" ({found} of {count})"
    return f"**Pick a CIFAR-10 test picture**{part}, shown with its true label:"


def nothing(why: str) -> tuple[Any, ...]:
    """Return what `Events.look` does, without an answer but with a text in its place."""
    return None, None, why, gr.Column(visible=False), *draw(None)


def aim(
    look: Look | None, across: float, down: float, size: float, event: gr.SelectData
) -> tuple[float, float]:
    """Move the part that the model sees to where the whole picture was clicked."""
    if look is None:
        return across, down
    scale = max(look.picture.size) / WHOLE
    x, y = (place * scale for place in event.index)
    crop = crop_around((x, y), Crop(across, down, size), look.picture.size)
    return round(crop.across, 4), round(crop.down, 4)


def shown(
    other_method: str, other_label: str, method: str, label: str, *shared: Any
) -> list[Settings]:
    """Return the settings of the map and, if there is one, of the map to compare with."""
    pairs = [(method, label), (other_method, other_label)]
    return [Settings(*pair, *shared) for pair in pairs if pair[0] != NOTHING]


def draw(look: Look | None, *values: Any) -> tuple[Any, ...]:
    """Draw the map, the one to compare with, what was seen and, if that was a part, the whole.

    No forward pass is needed.
    """
    hidden = gr.Image(None, visible=False)
    if look is None:
        return None, hidden, None, None
    settings = shown(*values)
    with page_errors():
        maps = [
            gr.Image(explain(look, each), label=title(look, each, settings), visible=True)
            for each in settings
        ]
        whole = explain_whole(look, settings[0]) if look.is_part else None
    heat, other = (*maps, hidden)[:2]
    return heat, other, enlarge(look.prediction.seen, SIDE), whole
