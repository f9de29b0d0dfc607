"""The left column of the segmentation tab: what is looked for, where, and by which models."""

import json
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from gradio.context import Context
from gradio.events import Dependency

from grounding.batch import LIMIT
from grounding.grounders import GROUNDERS
from grounding.segmenters import SEGMENTERS
from web.page import show_gallery

SAMPLES = Path(__file__).parent.parent / "assets" / "samples" / "segmentation"
PHOTOS = SAMPLES.with_name("photos")
PROMPT_HELP = (
    "Separate phrases with commas. “a dog: 0.4” gives a phrase its own threshold; "
    "“a dog -collar” takes the collar away."
)


def load_samples(folder: Path) -> list[list[str]]:
    """Return the path of each sample picture in a folder, its prompt, and an empty address."""
    rows = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    return [[str(folder / row["file"]), row["prompt"], ""] for row in rows]


@dataclass(frozen=True)
class Several:
    """Hold the components that take several pictures."""

    files: gr.File
    run: gr.Button
    results: gr.Column
    file: gr.File
    gallery: gr.Gallery
    text: gr.Textbox


@dataclass(frozen=True)
class Inputs:
    """Hold the components that say what is asked."""

    image: gr.Image
    url: gr.Textbox
    prompt: gr.Textbox
    run: gr.Button
    compare: gr.Button
    grounder: gr.Dropdown
    segmenter: gr.Dropdown
    several: Several


def _build_picture(sample: list[str], urls: bool) -> tuple[gr.Image, gr.Textbox, gr.Textbox]:
    image = gr.Image(
        value=sample[0],
        type="filepath",
        label="Picture",
        sources=["upload", "clipboard", "webcam"],
        height=360,
        alt_text="The picture to look at",
        elem_id="seg-image",
    )
    url = gr.Textbox(
        value="",  # which makes it optional for programs
        label="Or the address of a picture",
        placeholder="or the address of a picture: https://…",
        max_lines=1,
        show_label=False,
        container=False,
        visible=urls,
        elem_id="seg-url",
    )
    prompt = gr.Textbox(
        value=sample[1],
        label="What to look for",
        placeholder="a dog, the blue car",
        info=PROMPT_HELP,
        lines=1,
        max_lines=5,
        elem_id="seg-prompt",
    )
    return image, url, prompt


def _build_several() -> Several:
    with gr.Accordion("Several pictures at once", open=False, elem_id="seg-several"):
        gr.Markdown(
            "Each is searched for what the prompt above says, with the same settings. The ZIP has "
            "a folder for each."
        )
        files = gr.File(label=f"Up to {LIMIT} pictures", file_count="multiple", height=200)
        # Gradio itself makes an empty file beside each, which nobody deletes (gradio 6.31).
        files.preprocess = lambda uploads: [upload.path for upload in uploads or ()]
        run = gr.Button("Run on all", elem_id="seg-run-all")
        with gr.Column(visible=False) as results:
            text = gr.Textbox(label="Result", interactive=False, elem_id="seg-all-text")
            file = gr.File(label="ZIP", interactive=False, elem_id="seg-all-zip")
            gallery = show_gallery(
                "Pictures with their masks", 2, format="jpeg", elem_id="seg-all-gallery"
            )
    return Several(files, run, results, file, gallery, text)


def build_inputs(urls: bool) -> Inputs:
    """Build them; with `urls` there is a field for addresses."""
    image, url, prompt = _build_picture(load_samples(SAMPLES)[0], urls)
    with gr.Row():
        run = gr.Button("Run", variant="primary", elem_id="seg-run", min_width=120)
        compare = gr.Button("Compare all", elem_id="seg-compare", min_width=120)
    with gr.Row():
        # Wide enough for the longest choice; on a phone each has a line of its own.
        grounder = gr.Dropdown(
            list(GROUNDERS),
            label="Grounder",
            info="finds regions by text",
            min_width=210,
            elem_id="seg-grounder",
        )
        segmenter = gr.Dropdown(
            list(SEGMENTERS), label="Segmenter", info="refines them to masks", min_width=210
        )
    return Inputs(image, url, prompt, run, compare, grounder, segmenter, _build_several())


def build_samples(inputs: Inputs) -> list[Dependency]:
    """Build the samples; return the events that take one for what is asked."""
    # An old address must not win over a sample.
    asked, shown = [inputs.image, inputs.prompt, inputs.url], [0, 1]
    examples = [
        gr.Examples(rows, asked, label=label, elem_id=elem_id, visible_columns=shown)
        for rows, label, elem_id in (
            (load_samples(SAMPLES), "Samples", "seg-samples"),
            (load_samples(PHOTOS), "Photos, for the real models", "seg-photos"),
        )
    ]
    picked = [example.load_input_event for example in examples]
    for event in picked:  # the last sample that is clicked counts, and not the first (gradio 6.31)
        Context.root_block.fns[event["id"]].trigger_mode = "always_last"
    return picked
