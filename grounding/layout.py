"""How the parts of the segmentation tab lie on the page."""

import gradio as gr
from gradio.events import Dependency

from grounding.inputs import Inputs, build_inputs, build_samples
from grounding.outputs import Outputs, build_outputs

CSS = """
#seg-result img.mask:not(.inactive) { opacity: 1; }
/* Gradio 6.31 cuts off what fills the screen, with the masks below it. */
#seg-result.fullscreen :is(.base-image, .mask) { width: 100%; height: 100%; top: 0;
    object-fit: contain; }
#seg-table, #seg-numbers, #seg-samples, #seg-photos { max-width: calc(100vw - 32px);
    overflow-x: auto; }
/* Rows are switched off by their box; nothing else of the table is to be edited. */
#seg-table .add-row-container, #seg-table .add-row-button, #seg-table .header-icons,
#seg-table .cell-menu, #seg-table .cell-menu-button, #seg-table .selection-button {
    display: none; }
/* Of the hidden row that Gradio measures, Firefox sees no width and WebKit too much height. */
:is(#seg-table, #seg-numbers) .sizing-body tr { visibility: hidden; }
:is(#seg-table, #seg-numbers) .sizing-body :is(tr, td, td *) { height: 0 !important;
    min-height: 0 !important; padding-top: 0 !important; padding-bottom: 0 !important;
    line-height: 0 !important; }
/* Its cells have twice the padding of those that are shown. Phrases need it: the one that Gradio
   measures has the most letters, which need not be the widest. */
#seg-table .sizing-body td:not(:nth-child(3)), #seg-numbers .sizing-body td { padding: 0; }
/* In letters of the page, which are narrower: the table fits, or nearly, beside the settings. */
:is(#seg-table, #seg-numbers) :is(td, .cell-wrap) {
    font-family: var(--font); font-size: 12.5px; font-variant-numeric: tabular-nums; }
#seg-point { align-items: end; }
#seg-status p { margin: .2em 0; }
#seg-gallery .grid-wrap, #seg-all-gallery .grid-wrap { max-height: none; min-height: 0;
    overflow: visible; }
#seg-gallery .grid-container { grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
:is(#seg-gallery, #seg-all-gallery) .caption-label { left: 0; right: 0; bottom: 0; margin: 0;
    max-width: none; border-radius: 0; text-align: center; font-size: 12px; }
#seg-gallery .caption-label { white-space: normal; }
:is(#seg-gallery, #seg-all-gallery) .grid-container .thumbnail-item { padding-bottom: 24px; }
#seg-image :is(.upload-container, .image-frame) { width: 100% !important; }
#seg-image img { width: 100%; height: 100%; object-fit: contain; }
#seg-table:not(:has(tbody td)) { display: none; }
/* Four tools to a line. */
#seg-tool .wrap { gap: 6px; }
#seg-tool label { padding: 6px 7px; gap: 4px; }
#seg-tool label span { margin-left: 0; }
#seg-point button { margin-bottom: 12px; }
/* The labels and the buttons would cover a picture that is wide and low. */
#seg-stages .slider-wrap, #seg-canvas .image-container { padding-top: 40px; }
/* When the answer grows, it stays in sight, and not the samples nor, beside it, what is asked. */
#seg-below { overflow-anchor: none; }
@media (min-width: 721px) {
    #seg-left { overflow-anchor: none; }
}
/* Samples are tiles: a picture with its prompt below. */
:is(#seg-samples, #seg-photos) thead { display: none; }
:is(#seg-samples, #seg-photos) table { display: block; }
:is(#seg-samples, #seg-photos) tbody { display: grid; gap: 6px;
    grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); }
:is(#seg-samples, #seg-photos) tr { display: block; border: 0; border-radius: 6px; cursor: pointer;
    background: var(--block-background-fill); }
:is(#seg-samples, #seg-photos) tr:hover { box-shadow: 0 0 0 2px var(--primary-400); }
:is(#seg-samples, #seg-photos) td.image .container { width: 100%; height: auto; aspect-ratio: 1; }
:is(#seg-samples, #seg-photos) td img { width: 100%; height: 100%; object-fit: cover; }
:is(#seg-samples, #seg-photos) td { display: block; border: 0 !important; padding: 4px;
    text-align: center; font-size: 12px; line-height: 1.25; }
/* The samples stand below what is asked, or, on a phone, below the answer. */
#seg-row { display: grid; grid: "asked answer" auto "samples answer" 1fr /
    minmax(320px, 4fr) 6fr; }
#seg-row > * { min-width: 0 !important; }
#seg-left { grid-area: asked; }
#seg-right { grid-area: answer; }
#seg-below { grid-area: samples; }
/* As the fields that have a frame of Gradio's. */
#seg-url input { border: var(--input-border-width) solid var(--input-border-color);
    border-radius: var(--input-radius); }
#seg-url input:focus { border-color: var(--input-border-color-focus); }
/* The masks stay in sight while somebody changes what is shown of them: above all but Gradio's
   topmost layer. What the keyboard reaches stops below them. */
@media (min-width: 721px) and (min-height: 600px) {
    #seg-answer { --masks-height: clamp(300px, 100vh - 280px, 460px); }
    #seg-result:has(img):not(.fullscreen) { position: sticky; top: 0; z-index: 60;
        box-shadow: 0 8px var(--body-background-fill); }
    #seg-result:not(.fullscreen) { height: var(--masks-height) !important; }
    #seg-answer :is(input, button, #seg-status p) {
        scroll-margin-top: calc(var(--masks-height) + 20px); }
}
/* So low that Run is in sight in the window of a laptop, too. */
#seg-image:not(.fullscreen) { height: clamp(200px, calc(100vh - 420px), 360px) !important; }
@media (max-width: 720px) {
    #seg-image:not(.fullscreen) { height: clamp(200px, calc(100svh - 495px), 360px) !important; }
    #seg-row { grid: "asked" "answer" "samples" / 1fr; }
    #seg-result:not(.fullscreen) { height: auto !important; }
    /* The words come between the threshold and what is folded. */
    #seg-moved { display: contents; }
    #seg-said { order: 1; }
    #seg-more { order: 2; }
    #seg-gallery .grid-container .thumbnail-item { padding-bottom: 40px; }
}
"""


def build_page(urls: bool, weights: str) -> tuple[Inputs, Outputs, list[Dependency]]:
    """Build all parts; `urls` and `weights` are as for `build_inputs` and `build_outputs`.

    Returns:
        What is asked, what is answered, and what `build_samples` does.
    """
    with gr.Row(elem_id="seg-row"):
        with gr.Column(elem_id="seg-left"):
            inputs = build_inputs(urls)
        with gr.Column(elem_id="seg-right"):
            outputs = build_outputs(weights)
        with gr.Column(elem_id="seg-below"):
            samples = build_samples(inputs)
    return inputs, outputs, samples
