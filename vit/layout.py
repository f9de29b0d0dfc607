"""The components of the ViT tab and where they stand."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr

from vit.events import ALL, CENTRE, Events, say_count
from vit.panels import (
    Drawing,
    build_heads,
    build_learned,
    build_model,
    build_patch,
    build_test,
)
from vit.samples import Sample
from vit.view import BEST, CLASS_METHODS, LAYER, METHODS, NOTHING, ROLLOUT, SECOND
from web.page import QUIET, choice_of, show_picture

HEAD_FUSIONS = ("mean", "max", "min")  # the keys of vit.rollout.HEAD_FUSIONS
FIRST = 7  # the sample shown when the page opens
# Without "reset", which fires no `input` and goes back to the sizes of the first checkpoint.
SLIDER: dict[str, Any] = {"buttons": []}
CSS = """
/* No longer than the window: whoever picks one below would not see what the model says of it. */
#vit-samples .grid-wrap { max-height: max(222px, calc(100vh - 500px)); min-height: 0;
    overflow-y: auto; }
#vit-samples .grid-container {
    grid-template: none / repeat(5, minmax(0, 1fr)); grid-auto-rows: auto; gap: 6px; }
#vit-samples .thumbnail-item { min-width: 0; height: auto; aspect-ratio: 4 / 5; }
#vit-samples .caption-label {
    left: 0; right: 0; bottom: 0; max-width: none; margin: 0; padding: 1px 2px; border: 0;
    border-radius: 0; font-size: 10.5px; line-height: 1.3; text-align: center;
    white-space: normal; }
/* In WebKit what is around a small picture shrinks to it. */
#vit-image :is(.upload-container, .image-frame) { width: 100% !important; }
#vit-image img { width: 100%; height: 100%; object-fit: contain; }
/* The label and the buttons would cover a picture that is wide and low. */
#vit-whole .image-container { padding-top: 40px; }
#vit-patch-show { align-self: end; margin-bottom: 12px; }
#vit-note { padding: 4px 8px; }
#vit-note h2 { margin-top: 0; font-size: var(--text-xl); }
/* Room for the buttons, which would lie over the last tile. */
.vit-sheet .image-container { overflow-x: auto; overscroll-behavior-x: contain; }
:is(.vit-sheet, #vit-positions, #vit-filters) .image-container { padding-top: 34px; }
@media (pointer: coarse) {
    :is(.vit-sheet, #vit-positions, #vit-filters) .image-container { padding-top: 46px; }
}
/* The button around it, too, in which it would reach out to the left, where nothing scrolls. */
.vit-sheet :is(.image-container > button, .image-frame) { min-width: 600px; }
/* The names on a sheet are dark, also on a dark page. One of few tiles is no larger than it is. */
.vit-sheet img { background: white; padding: 4px; border-radius: 4px;
    width: auto !important; max-width: 100%; height: auto !important; }
/* They stay in sight while somebody changes how they are made: above all layers of Gradio's but the
   topmost. What the keyboard reaches stops below them. */
@media (min-width: 721px) and (min-height: 600px) {
    #vit-pictures { position: sticky; top: 0; z-index: 60; background: var(--body-background-fill);
        padding-bottom: 8px; }
    #vit-answer :is(input, button) { scroll-margin-top: 440px; }
}
@media (max-width: 1160px) { #vit-samples .caption-label { font-size: 9px; padding: 1px 0; } }
/* On a phone the answer comes right after the samples. */
@media (max-width: 720px) {
    .vit-sheet .image-frame { justify-content: start; }
    #vit-row { flex-direction: column; flex-wrap: nowrap; }
    #vit-left, #vit-right { display: contents; }
    #vit-answer { order: 1; }
    #vit-image, #vit-part { order: 2; }
    #vit-panels { order: 3; }
    /* In two rows that a finger moves, so that the answer to a tap is in sight below them. */
    #vit-samples .grid-wrap { max-height: none; overflow-x: auto;
        overscroll-behavior-x: contain; }
    #vit-samples .grid-container { grid: repeat(2, auto) / auto-flow 76px; }
    #vit-samples .caption-label { font-size: 10.5px; }
    /* Beside each other, so that what the model says is in sight, too. */
    #vit-pictures > * { min-width: 150px !important; }
    #vit-pictures .image-container { padding-top: 32px; }
    #vit-pictures > * > label { left: 0; padding: 2px 4px; font-size: 11px; }
    #vit-pictures > * > label span { display: none; }
    /* Beside the name there is no room for two buttons as large as a finger. */
    #vit-pictures .block:not(.fullscreen) .download-link { display: none; }
}
"""
COLOURS_HELP = "Dark to yellow is lowest to highest *within one map*."


class Browser(NamedTuple):
    """The bundled pictures, filtered."""

    heading: gr.Markdown
    label: gr.Dropdown
    wrong: gr.Checkbox
    gallery: gr.Gallery
    chosen: gr.State  # indices of the samples in the gallery


class Source(NamedTuple):
    """The picture, and which part of it the model sees."""

    image: gr.Image
    part: gr.Column  # holds what follows
    whole: gr.Image
    crop: list[gr.Slider]  # the fields of `vit.crop.Crop`


class Answer(NamedTuple):
    """What the model says and where it looked."""

    heat: gr.Image
    other: gr.Image
    seen: gr.Image
    label: gr.Label
    note: gr.Markdown

    @property
    def pictures(self) -> list[gr.Image]:
        """Return the large pictures of what the model saw."""
        return [self.heat, self.other, self.seen]


class Controls(NamedTuple):
    """How the maps are made."""

    method: gr.Dropdown
    label: gr.Dropdown
    other_method: gr.Dropdown
    other_label: gr.Dropdown
    fusion: gr.Radio
    ratio: gr.Slider
    layers: list[gr.Slider]  # first, last, layer, head
    pack: gr.Button
    file: gr.DownloadButton

    @property
    def mapped(self) -> list[gr.components.Component]:
        """Return what the fields of `vit.view.Settings` are read from."""
        return [self.method, self.label, self.fusion, self.ratio, *self.layers]


class Page(NamedTuple):
    """All parts of the tab."""

    session: gr.State  # a `vit.view.Look`
    browser: Browser
    source: Source
    answer: Answer
    controls: Controls
    patch_layer: gr.Slider
    drawings: list[Drawing]  # the last one is the test of the map
    learned: Drawing
    menu: gr.Dropdown

    @property
    def settings(self) -> list[gr.components.Component]:
        """Return how maps are drawn."""
        controls = self.controls
        return [controls.other_method, controls.other_label, *controls.mapped]

    @property
    def asked(self) -> list[gr.components.Component]:
        """Return what `Events.look` takes."""
        return [self.source.image, self.menu, *self.source.crop, *self.settings]

    @property
    def seen(self) -> list[gr.components.Component]:
        """Return what `Events.look` fills."""
        source, answer = self.source, self.answer
        said = [self.session, answer.label, answer.note, source.part]
        return [*said, *answer.pictures, source.whole]


def _build_browser(samples: Sequence[Sample]) -> Browser:
    count = len(samples)
    heading = gr.Markdown(say_count(count, count, known=count), elem_id="vit-heading")
    with gr.Row(equal_height=True):
        label = gr.Dropdown(
            [ALL, *dict.fromkeys(sample.label for sample in samples)],
            label="Class",
            show_label=False,
            container=False,
            min_width=130,
            elem_id="vit-filter",
        )
        wrong = gr.Checkbox(
            label="mistakes only", container=False, min_width=130, elem_id="vit-wrong"
        )
    gallery = gr.Gallery(
        list(samples),
        label="CIFAR-10 test pictures",
        show_label=False,
        columns=5,
        height="auto",
        selected_index=FIRST,
        format="png",
        object_fit="cover",
        allow_preview=False,
        buttons=[],
        interactive=False,
        elem_id="vit-samples",
    )
    return Browser(heading, label, wrong, gallery, gr.State(list(range(count))))


def _build_source(first: Sample) -> Source:
    image = gr.Image(
        value=first.picture,
        type="filepath",
        format="png",
        label="Your picture",
        alt_text="The picture to look at",
        sources=["upload", "clipboard", "webcam"],
        height=220,
        elem_id="vit-image",
    )
    with gr.Column(visible=False, elem_id="vit-part") as part:
        whole = show_picture(
            "The part it sees: click to move",
            alt_text="The whole picture, with the part that the model sees",
            elem_id="vit-whole",
        )
        with gr.Row():
            across = _share("Across", "vit-across", 0, CENTRE.across)
            down = _share("Down", "vit-down", 0, CENTRE.down)
        size = _share("Size", "vit-size", 0.1, CENTRE.size)
    return Source(image, part, whole, [across, down, size])


def _share(label: str, elem_id: str, lowest: float, value: float) -> gr.Slider:
    return gr.Slider(
        lowest, 1, value, step=0.01, label=label, elem_id=elem_id, min_width=140, **SLIDER
    )


def _build_answer() -> Answer:
    with gr.Row(elem_id="vit-pictures"):
        heat = show_picture("Where it looked", elem_id="vit-overlay", min_width=210)
        other = show_picture("To compare", elem_id="vit-other", min_width=210, visible=False)
        seen = show_picture("What it saw", elem_id="vit-seen", min_width=210)
    with gr.Row():
        label = gr.Label(
            label="Class probabilities",
            num_top_classes=5,
            show_heading=False,
            min_width=280,
            elem_id="vit-label",
        )
        with gr.Column(min_width=280):
            note = gr.Markdown("The model is being loaded …", label="Note", elem_id="vit-note")
    return Answer(heat, other, seen, label, note)


def _build_settings(facts: dict[str, Any]) -> Controls:
    """Build the choice of the map and of one to compare with and, folded, how they are made."""
    classes = [BEST, SECOND, *facts["classes"]]
    with gr.Row():
        method = _menu(list(METHODS), "Method", "vit-method")
        label = _menu(classes, "For class", "vit-class", visible=False)
        other = _menu([NOTHING, *METHODS], "Compare with", "vit-other-method")
        other_label = _menu(classes, "For class", "vit-other-class", value=SECOND, visible=False)
    with gr.Accordion("How the map is made", open=False, elem_id="vit-how") as fold:
        help_text = gr.Markdown(f"{METHODS[ROLLOUT]} {COLOURS_HELP}")
        with gr.Row() as fusing:
            fusion, ratio = _build_fusion()
        with gr.Row() as ranged:
            first, last = _build_range(facts["config"]["depth"])
        with gr.Row(visible=False) as single:
            layer, head = _build_single(facts["config"])
        pack = gr.Button("Download the arrays (NPZ)", size="sm", elem_id="vit-pack")
        file = gr.DownloadButton("NPZ", visible="hidden", elem_id="vit-npz")
    outputs = [help_text, label, other_label, fusing, ranged, single, fold]
    gr.on([method.change, other.change], _adapt, [method, other], outputs, **QUIET)
    layers = [first, last, layer, head]
    return Controls(method, label, other, other_label, fusion, ratio, layers, pack, file)


def _menu(choices: Sequence[str], label: str, elem_id: str, **options: Any) -> gr.Dropdown:
    # Wide enough for the longest choice, and two to a line; on a phone each has its own.
    return gr.Dropdown(list(choices), label=label, elem_id=elem_id, min_width=260, **options)


def _adapt(method: str, other: str) -> tuple[Any, ...]:
    """Explain the method, and show the settings that it and the other one have."""
    both = {method, other}
    return (
        f"{METHODS[method]} {COLOURS_HELP}",
        gr.Dropdown(visible=method in CLASS_METHODS),
        gr.Dropdown(visible=other in CLASS_METHODS),
        gr.Row(visible=ROLLOUT in both),
        gr.Row(visible=bool(both - {LAYER, NOTHING})),
        gr.Row(visible=LAYER in both),
        gr.Accordion(open=True) if LAYER in both else gr.skip(),  # which layer is the question
    )


def _build_fusion() -> tuple[gr.Radio, gr.Slider]:
    fusion = gr.Radio(
        list(HEAD_FUSIONS),
        value="mean",
        label="Head fusion",
        info="how the heads of a layer become one",
        elem_id="vit-fusion",
    )
    ratio = gr.Slider(
        0,
        0.95,
        0,
        step=0.05,
        label="Discard ratio",
        info="share of the patches left out in every layer, least attended first",
        elem_id="vit-discard",
        **SLIDER,
    )
    return fusion, ratio


def _build_range(depth: int) -> tuple[gr.Slider, gr.Slider]:
    first = choice_of(depth, 1, label="From layer", elem_id="vit-first")
    last = choice_of(depth, depth, label="To layer", elem_id="vit-last")
    return first, last


def _build_single(config: dict[str, Any]) -> tuple[gr.Slider, gr.Slider]:
    depth, heads = config["depth"], config["num_heads"]
    layer = choice_of(depth, depth, label="Layer", elem_id="vit-layer")
    options = {"step": 1, "info": "0 is the mean of all", "elem_id": "vit-head", **SLIDER}
    head = gr.Slider(0, heads, 0, label="Head", **options)
    return layer, head


def build_page(facts: dict[str, Any], events: Events) -> Page:
    """Build all of the tab for the checkpoint that is shown first.

    Args:
        facts: Of `vit.facts.read_facts`.
        events: Has the samples and the other checkpoints.
    """
    session = gr.State()
    with gr.Row(elem_id="vit-row"):
        with gr.Column(scale=4, min_width=320, elem_id="vit-left"):
            source = _build_source(events.samples[FIRST])
            browser = _build_browser(events.samples)
        with gr.Column(scale=7, min_width=320, elem_id="vit-right"):
            with gr.Column(elem_id="vit-answer"):
                answer = _build_answer()
                controls = _build_settings(facts)
            with gr.Column(elem_id="vit-panels"):
                patch_layer, patch = build_patch(session, answer.pictures, facts["config"]["depth"])
                drawings = [patch, build_heads(session), build_test(session, controls.mapped)]
                learned = build_learned(session)
                menu = build_model(list(events.checkpoints), events.facts)
    return Page(session, browser, source, answer, controls, patch_layer, drawings, learned, menu)
