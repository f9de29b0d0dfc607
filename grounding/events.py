"""What happens when somebody asks the models of the segmentation tab for something."""

from collections.abc import Callable, Iterator
from contextvars import copy_context
from itertools import chain, groupby
from threading import Lock
from typing import Any, ParamSpec, TypeVar

import gradio as gr
import numpy as np
from PIL import Image

from common.images import open_image
from grounding.batch import Report, segment_files
from grounding.compare import COMPARED, compare, describe
from grounding.core import Clicks, Masks, Regions
from grounding.export import ARCHIVE, detections, zip_files
from grounding.grounders import GROUNDERS
from grounding.overlay import from_shown, shown_scale
from grounding.prompt import parse_prompt
from grounding.retouch import click
from grounding.segmenters import SEGMENTERS
from grounding.select import Proposals
from grounding.session import Session, look, shown_result
from grounding.settings import THRESHOLDS, Settings, read_settings
from grounding.store import ModelStore
from grounding.weights import Origin, Source
from web.page import new_folder, page_errors, warn

# The names of both models and their weights, a picture, the prompt and the threshold.
Infer = Callable[[str, str, Source, Source, Image.Image, str, float], tuple[Proposals, Origin]]
# The name of the segmenter and its weights, a picture, and what is to be outlined in it.
Draw = Callable[[str, Source, Image.Image, Regions | tuple[np.ndarray, Clicks]], Masks]
Fetch = Callable[[str], Image.Image]
P = ParamSpec("P")
T = TypeVar("T")
GROUNDER, SEGMENTER = next(iter(GROUNDERS)), next(iter(SEGMENTERS))


def read_picture(path: str | None, url: str | None, fetch: Fetch | None) -> Image.Image:
    """Return the picture of an address if there is one, else the uploaded one.

    Raises:
        ValueError: If there is neither, it is no picture or there is no `fetch` for addresses.
    """
    url = (url or "").strip()
    if url and not fetch:
        raise ValueError("This server takes no addresses of pictures; upload the picture instead.")
    if url:
        return fetch(url)
    if not path:
        address = ", or give its address" if fetch else ""
        raise ValueError(f"Choose a picture first: upload, paste or take one{address}.")
    return open_image(path)


def _one_at_a_time(function: Callable[P, T], turn: Lock) -> Callable[P, T]:
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with turn:
            return function(*args, **kwargs)

    return call


class Events:
    """Answer the events that need a model."""

    def __init__(self, store: ModelStore, infer: Infer, draw: Draw, fetch: Fetch | None) -> None:
        """Take the models, what runs them by their names, and what opens addresses, if anything."""
        turn = Lock()
        self.infer, self.draw = _one_at_a_time(infer, turn), _one_at_a_time(draw, turn)
        self.store, self.fetch = store, fetch

    def segment(
        self,
        image: str | None = None,  # for programs all have defaults: no picture, but an address
        url: str = "",
        prompt: str = "",
        grounder: str = GROUNDER,
        segmenter: str = SEGMENTER,
        threshold: float | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio hands it over)
    ) -> tuple[Any, ...]:
        """Find what the prompt names in a picture and outline it.

        In a prompt "a dog: 0.4" gives a phrase its own threshold; "a dog -collar" takes the
        collar's area away. Pixels are those of the picture turned upright and, if it is longer,
        shrunk to 2048. The pictures that are returned are at most 1280 long.

        Args:
            image: The picture, for MCP as a data: URL; not needed when url is given.
            url: Address of a picture, or empty.
            prompt: What to look for: phrases separated by commas, line ends or full stops.
            grounder: Model that finds regions by text.
            segmenter: Model that refines regions to masks.
            threshold: Lowest score of a region, 0.05 to 0.95; if none is given, the grounder's own.
            progress: Shows on the page how far a download is.

        Returns:
            the picture with its masks
            the grounder's own answer
            a table
            a status text
            the detections as data: phrase, scores, box xyxy and area in pixels, mask as COCO RLE
        """
        with page_errors():
            threshold = _choose_threshold(threshold, grounder)
        session = self._ask(image, url, prompt, grounder, segmenter, threshold, progress)
        settings = Settings()
        view = look(session, settings, threshold)
        data = detections(shown_result(session, settings, threshold))
        return view.painted, view.stages[0], view.rows, view.status, data

    def run(
        self,
        image: str | None,
        url: str,
        prompt: str,
        grounder: str,
        segmenter: str,
        threshold: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio hands it over)
    ) -> tuple[Session, float, gr.Dropdown]:
        """Answer the page.

        Returns:
            The session and its threshold, which the page keeps, and the phrases that a drawn box
            may hold; nothing new where something was wrong, which is said.
        """
        try:
            session = self._ask(image, url, prompt, grounder, segmenter, threshold, progress)
        except gr.Error as error:
            warn(error)
            return (gr.skip(),) * 3
        phrases = session.proposals.query.phrases
        return session, session.asked["threshold"], gr.Dropdown(choices=phrases, value=phrases[0])

    def compare(
        self,
        image: str | None = None,
        url: str = "",
        prompt: str = "",
        segmenter: str = SEGMENTER,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio hands it over)
    ) -> tuple[Any, ...]:
        """Run one grounder of each kind on a picture, each at its own threshold.

        Args:
            image: The picture, for MCP as a data: URL; not needed when url is given.
            url: Address of a picture, or empty.
            prompt: What to look for, as in segment.
            segmenter: Model that refines regions to masks.
            progress: Shows on the page which grounder is at work.

        Returns:
            a picture for each grounder
            a table of counts, scores and seconds
            the detections of each grounder as data, as in segment
        """
        pictures, rows, data, _ = self._compare(
            (image, url, prompt), segmenter, Settings(), progress
        )
        return pictures, rows, data

    def compare_here(
        self,
        image: str | None,
        url: str,
        prompt: str,
        segmenter: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio hands it over)
        *more: Any,
    ) -> Iterator[tuple[Any, ...]]:
        """Answer the page.

        “More settings” come from the page itself: the server may have forgotten them.

        Yields:
            A picture for each grounder, the table, and what is to be said of them, which is nothing
            new at first or where something was wrong, which is said; and whether it is at work.
        """
        asked = image, url, prompt
        yield *(gr.skip(),) * 3, True  # one that was asked for before may just have ended
        try:
            pictures, rows, _, said = self._compare(
                asked, segmenter, read_settings(*more), progress
            )
        except gr.Error as error:
            warn(error)
            yield *(gr.skip(),) * 3, False
        else:
            yield pictures, rows, said, False

    def _compare(
        self,
        asked: tuple[str | None, str, str],
        segmenter: str,
        settings: Settings,
        progress: gr.Progress,
    ) -> tuple[Any, ...]:
        """Answer as `compare`, and with what is to be said of it."""
        image, url, prompt = asked
        sources: list[Source] = []

        def ask(grounder: str, threshold: float) -> Proposals:
            found = self.store.fetch(grounder, segmenter, _report(progress))
            progress(COMPARED.index(grounder) / len(COMPARED), desc=f"Asking {grounder}")
            proposals, _ = self.infer(grounder, segmenter, *found, picture, prompt, threshold)
            sources.extend(found)
            return proposals

        with page_errors():
            picture = read_picture(image, url, self.fetch)
            parse_prompt(prompt or "")
            answers = list(compare(picture, ask, settings))
        pictures = [(answer.picture, answer.caption) for answer in answers]
        data = {str(answer.row[0]): answer.detections for answer in answers}
        return pictures, [answer.row for answer in answers], data, describe(prompt, sources)

    def click(
        self,
        session: Session | None,
        settings: Settings,
        threshold: float,
        tool: str,
        phrase: str,
        key: str,
        event: gr.SelectData,
    ) -> str:
        """Correct the answer where the picture was clicked; `key` is of that which was shown."""
        scale = shown_scale(session.image) if session else 1.0
        x, y = (from_shown(place, scale) for place in event.index)
        return self.correct(session, settings, threshold, tool, phrase, key, x, y)

    def correct(
        self,
        session: Session | None,
        settings: Settings,
        threshold: float,
        tool: str,
        phrase: str,
        key: str,
        x: str | float,
        y: str | float,
    ) -> str:
        """Correct the answer at a point of the picture, x and y in pixels, maybe as typed.

        Returns:
            The key of that answer.
        """

        def outline(asked: Session, what: Regions | tuple[np.ndarray, Clicks]) -> Masks:
            # With the weights of the answer, and not what the hub may have by now.
            source = asked.origin.segmenter
            return self.draw(asked.asked["segmenter"], source, asked.image, what)

        with page_errors():
            if session is None:
                raise ValueError("Press Run first, then say where the picture is to be corrected.")
            if session.key != key:
                raise ValueError("A new answer has come meanwhile; correct that one.")
            place = _pixels(x), _pixels(y)
            click(session, settings, threshold, tool, phrase, place, outline)
        return key

    def batch(
        self,
        files: list[str] | None,
        prompt: str,
        grounder: str,
        segmenter: str,
        threshold: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio hands it over)
        *more: Any,
    ) -> Iterator[tuple[Any, Any, Any]]:
        """Segment several pictures and pack all their files into one ZIP, a folder for each.

        Args:
            files: The pictures, at most 50.
            prompt: What to look for, as in segment.
            grounder: Model that finds regions by text.
            segmenter: Model that refines regions to masks.
            threshold: Lowest score of a region, from 0.05 to 0.95.
            progress: Shows on the page how many pictures are done.
            more: What “More settings” says, in the order of `read_settings`.

        Yields:
            Nothing new for each picture, which is where Gradio stops for who has left; at the end
            the ZIP, the pictures with their masks, and a text about the pictures that failed;
            nothing new where something was wrong, which is said.
        """
        report, file = Report(), None

        def answer(picture: Image.Image, done: float) -> Session:
            return self._answer(
                picture, prompt, grounder, segmenter, threshold, progress, done=done
            )

        try:
            with page_errors():
                parse_prompt(prompt or "")
                settings = read_settings(*more)
                made = segment_files(files or [], answer, settings, threshold, report)
                if first := next(made, None):
                    file = new_folder() / ARCHIVE
                    zipped = zip_files(file, chain([first], made))
                    for _folder, _names in groupby(zipped, lambda name: name.partition("/")[0]):
                        yield (gr.skip(),) * 3
            yield file and str(file), report.painted, report.describe()
        except gr.Error as error:
            warn(error)
            yield (gr.skip(),) * 3

    def _ask(self, image: str | None, url: str, *asked: Any) -> Session:
        """Open the picture and run the models; what else is asked is as for `_answer`."""
        with page_errors():
            picture = read_picture(image, url, self.fetch)
            return self._answer(picture, *asked, url=(url or "").strip(), path=image)

    def _answer(
        self,
        picture: Image.Image,
        prompt: str,
        grounder: str,
        segmenter: str,
        threshold: float,
        progress: gr.Progress,
        url: str = "",
        path: str | None = None,
        done: float | None = None,
    ) -> Session:
        """Run the models.

        `url` and `path` are what the page had for a picture; `done` is how far a bar is.
        """
        parse_prompt(prompt or "")  # a mistake in it shows before a model is downloaded
        # Not loaded: on ZeroGPU only `infer` and `draw` can, in a process of their own.
        found = self.store.fetch(grounder, segmenter, _report(progress))
        progress(done, desc="Looking for regions")
        proposals, origin = self.infer(grounder, segmenter, *found, picture, prompt, threshold)
        asked = {
            "prompt": prompt,
            "grounder": grounder,
            "segmenter": segmenter,
            "threshold": float(threshold),  # on the page it may be a `web.repairs.Clamped`
            "url": url,
        }
        return Session(picture, proposals, origin, asked, path=path)


def _choose_threshold(given: object, grounder: str) -> float:
    """Return the threshold that a program has given, or the grounder's own if it has given none."""
    if given is None:  # and a grounder that is not on the menu is refused later
        return GROUNDERS.get(str(grounder), GROUNDERS[GROUNDER]).threshold
    low, high = THRESHOLDS
    if not isinstance(given, int | float) or not low <= given <= high:
        raise ValueError(
            f"threshold is {given!r}; give a number from {low} to {high}, or none for the "
            "grounder's own"
        )
    return float(given)


def _report(progress: gr.Progress) -> Callable[[float, str], None]:
    # The hub's client reports from threads of its own, in which Gradio does not know who waits.
    here = copy_context()
    return lambda share, text: here.copy().run(progress, share, desc=text)


def _pixels(typed: str | float) -> float:
    try:
        return float(typed)
    except ValueError:
        raise ValueError("Say where: x and y in pixels of the picture, as numbers.") from None
