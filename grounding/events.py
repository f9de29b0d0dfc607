"""What happens when somebody presses, ticks or moves something on the segmentation tab."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from grounding.compare import compare
from grounding.images import fetch_image, open_image
from grounding.pipeline import ModelStore
from grounding.prompt import parse_prompt
from grounding.select import Proposals
from grounding.session import (
    Session,
    Settings,
    look,
    pack_zip,
    read_settings,
    settings_from_query,
    switch,
)
from page import page_errors

Infer = Callable[[str, str, Image.Image, str, float], Proposals]
Fetch = Callable[[str], Image.Image]


def read_picture(
    path: str | None, url: str | None, fetch: Fetch | None = fetch_image
) -> Image.Image:
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
        raise ValueError("Choose a picture first: upload, paste or take one, or give its address.")
    return open_image(path)


class Events:
    """Answer the events; models run in `segment` and `compare` only."""

    def __init__(self, store: ModelStore, infer: Infer, fetch: Fetch | None = fetch_image) -> None:
        """Take the models, what runs them by their names, and what opens addresses, if anything."""
        self.store, self.infer, self.fetch = store, infer, fetch

    def segment(
        self,
        image: str | None,
        url: str,
        prompt: str,
        grounder: str,
        segmenter: str,
        threshold: float,
        settings: Settings,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio hands it over)
    ) -> tuple[Any, ...]:
        """Find what the prompt names in a picture and outline it.

        Args:
            image: The picture; not needed when url is given.
            url: Address of a picture, or empty.
            prompt: What to look for: phrases separated by commas, line ends or full stops.
                "a dog: 0.4" gives a phrase its own threshold; "a dog -collar" takes the collar's
                area away.
            grounder: Model that finds regions by text.
            segmenter: Model that refines regions to masks.
            threshold: Lowest score of a region, from 0 to 1.
            settings: What “More settings” says.
            progress: Shows on the page how far a download is.

        Returns:
            The picture with its masks, the grounder's own answer, a table and a status text.
        """
        with page_errors():
            picture = read_picture(image, url, self.fetch)
            parse_prompt(prompt or "")
            models = self.store.get(grounder, segmenter, _report(progress))
            progress(1.0, desc="Looking for regions")
            proposals = self.infer(grounder, segmenter, picture, prompt, threshold)
        asked = {"prompt": prompt, "grounder": grounder, "segmenter": segmenter}
        used = replace(models, grounder=None, segmenter=None)
        session = Session(picture, proposals, used, asked | {"threshold": threshold})
        *answer, _stages = show(session, settings, threshold)
        return *answer, session

    def compare(
        self,
        image: str | None,
        url: str,
        prompt: str,
        segmenter: str,
        settings: Settings,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how Gradio hands it over)
    ) -> tuple[Any, ...]:
        """Run every grounder on the same picture and prompt, each at its own threshold.

        Args:
            image: The picture; not needed when url is given.
            url: Address of a picture, or empty.
            prompt: What to look for, as in segment.
            segmenter: Model that refines regions to masks.
            settings: What “More settings” says.
            progress: Shows on the page which grounder is at work.

        Returns:
            A picture for each grounder, and a table of counts, scores and seconds.
        """

        def ask(grounder: str, threshold: float) -> Proposals:
            self.store.get(grounder, segmenter, _report(progress))
            progress(1.0, desc=f"Asking {grounder}")
            return self.infer(grounder, segmenter, picture, prompt, threshold)

        with page_errors():
            picture = read_picture(image, url, self.fetch)
            parse_prompt(prompt or "")
            answers = list(compare(picture, ask, settings.style))
        pictures = [(answer.picture, answer.caption) for answer in answers]
        return pictures, [answer.row for answer in answers]

    def configure(self, session: Session | None, threshold: float, *values: Any) -> tuple[Any, ...]:
        """Take over “More settings”."""
        settings = read_settings(*values)
        return settings, *show(session, settings, threshold)

    def tick(
        self,
        session: Session | None,
        settings: Settings,
        threshold: float,
        rows: list[list[Any]],
    ) -> tuple[Any, ...]:
        """Switch detections on and off."""
        if session is None:
            return (gr.skip(),) * 6
        session = switch(session, settings, threshold, rows)
        result, regions, table, *rest = show(session, settings, threshold)
        # Without negatives no other row changes, and the table keeps the keyboard's place.
        table = table if session.proposals.query.negatives else gr.skip()
        return session, result, regions, table, *rest

    def pack(self, session: Session | None, settings: Settings, threshold: float) -> str:
        """Write the ZIP and return its path."""
        # Inside Gradio's own folder, which it cleans; a folder each, so that names do not meet.
        folder = Path(get_upload_folder()) / uuid4().hex
        with page_errors():
            return str(pack_zip(session, settings, threshold, folder))


def show(session: Session | None, settings: Settings, threshold: float) -> tuple[Any, ...]:
    """Show an answer in another way; before the first answer nothing changes."""
    if session is None:
        return (gr.skip(),) * 5
    (painted, colours), *rest = look(session, settings, threshold)
    return gr.AnnotatedImage(value=painted, color_map=colours), *rest


def show_stages(session: Session, settings: Settings, threshold: float) -> tuple[Any, ...]:
    """Show both stages, and put away the comparison."""
    return look(session, settings, threshold)[-1], gr.Column(visible=False)


def _report(progress: gr.Progress) -> Callable[[float, str], None]:
    return lambda share, text: progress(share, desc=text)


def follow_link(request: gr.Request) -> list[Any]:
    """Return which tab to open and what to put into the components that `build_tab` returns."""
    said = settings_from_query(dict(request.query_params))
    values = [said.get(n, gr.skip()) for n in ("prompt", "grounder", "segmenter", "threshold")]
    return [gr.Tabs(selected="segmentation") if said else gr.skip(), *values]
