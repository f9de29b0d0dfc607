"""The ViT tab: which components an event takes and changes.

torch is imported with the first picture, so that the page is up before.
"""

from pathlib import Path

import gradio as gr
from gradio.context import Context
from gradio.events import Dependency

from vit.events import Events, FindCheckpoints, aim
from vit.facts import read_facts
from vit.layout import Page, build_page
from vit.panels import DRAWN, together
from vit.samples import load_samples
from web.page import LATEST, QUIET, bring, hand_over_download, one_by_one

# What makes or reads an answer, or the maps of an earlier one might come after those of the next.
ONE_BY_ONE = one_by_one("answer")
# Which sample is marked: of several clicks "always_last" would come with the place of the first.
MARKED = """chosen => [chosen, [...document.querySelectorAll("#vit-samples .thumbnail-item")]
    .findIndex(item => item.classList.contains("selected"))]"""
# On a phone the answer lies above the picture that is uploaded, out of sight.
SHOW_ANSWER = bring("#vit-answer", "seen.height < 200 || above > 200")
UNKNOWN = {"config": {"depth": 2, "num_heads": 2}, "classes": []}  # without a checkpoint


def _wire_api(page: Page, events: Events) -> None:
    """Offer an answer in one step; the page itself keeps it in its session."""
    source, controls, answer = page.source, page.controls, page.answer
    image = gr.Image(type="filepath", label="Picture", visible=False)  # the page's is no default
    gr.on(
        [],
        events.classify,
        [image, controls.fusion, controls.ratio, page.menu, *source.crop],
        [answer.label, answer.heat, answer.seen, answer.note],
        api_name="classify",
    )


def _wire_browser(page: Page, events: Events) -> Dependency:
    """Return the event that takes a sample for the picture."""
    browser = page.browser
    filters = [page.menu, browser.label, browser.wrong]
    found = [browser.gallery, browser.chosen, browser.heading]
    gr.on([part.change for part in filters], events.browse, filters, found, **QUIET)
    page.source.image.upload(
        lambda: gr.Gallery(selected_index=None), None, browser.gallery, **QUIET
    )
    page.source.image.upload(None, js=SHOW_ANSWER)
    return browser.gallery.select(
        events.pick_sample,
        [browser.chosen, gr.Number(visible=False)],
        page.source.image,
        js=MARKED,
        api_visibility="private",
        trigger_mode="always_last",
    )


def _wire_answer(page: Page, events: Events, picked: Dependency) -> None:
    """Classify and draw anew whenever the picture, its part or the checkpoint changes."""
    source, controls, seen = page.source, page.controls, page.seen
    # `change` comes twice where one picture takes another's place (gradio 6.31).
    opened = [Context.root_block.load, source.image.input]
    given, shown = [source.image, page.menu, *page.settings], [*source.crop, *seen]
    new = gr.on(opened, events.begin, given, shown, **ONE_BY_ONE)
    sample = picked.success(events.begin, given, shown, **ONE_BY_ONE)
    # A picture that is taken away is `input`, too, and with its old path (gradio 6.31).
    here = [*seen, page.browser.gallery]
    kept = new.success(events.forget_if_gone, source.image, here, **ONE_BY_ONE)
    aimed = source.whole.select(aim, [page.session, *source.crop], source.crop[:2], **QUIET)
    adapted = [controls.label, controls.other_label, *controls.layers, page.patch_layer]
    chosen = page.menu.change(events.choose, page.menu, adapted, **QUIET)
    look = {"fn": events.look, "inputs": page.asked, "outputs": seen, **ONE_BY_ONE}
    aimed, chosen = aimed.success(**look), chosen.success(**look)
    moves = [slider.input for slider in source.crop]
    moved = gr.on(moves, **look)
    panels = together(page.drawings)
    for looked in (kept, sample, aimed, chosen, moved):
        looked.success(*panels, **DRAWN)
    chosen.success(*page.learned, **LATEST)  # which only another checkpoint changes


def _wire_maps(page: Page, events: Events) -> None:
    """Draw anew what is already computed, and hand it out."""
    # Only what a person does: another checkpoint sets several of them, one after the other.
    moved = [component.input for component in page.settings]
    gr.on(moved, events.redraw, [page.session, *page.asked], page.seen, **ONE_BY_ONE)
    controls = page.controls
    tested = [component.input for component in controls.mapped]
    gr.on(tested, *page.drawings[-1], **LATEST)  # the test was about another map
    packed = controls.pack.click(
        events.pack, [page.session, *page.settings], controls.file, api_visibility="private"
    )
    hand_over_download(packed, controls.file)


def build_tab(find: FindCheckpoints) -> None:
    """Build the tab inside the current `gr.Blocks`.

    Args:
        find: Finds the files written by `train_vit.py`, by name, now and whenever a page opens.
            The first is the first to be shown; each is read when it is asked for.
    """
    events = Events(find, load_samples())
    facts = read_facts(next(iter(events.checkpoints.values()), Path())) or UNKNOWN
    page = build_page(facts, events)
    # Without inputs and triggers: when the page opens.
    gr.on(None, events.refresh, None, page.menu, **QUIET)
    _wire_api(page, events)
    picked = _wire_browser(page, events)
    _wire_answer(page, events, picked)
    _wire_maps(page, events)
