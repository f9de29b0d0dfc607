"""Both tabs in light and in dark: every text and every line can be read."""

import io
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image, ImageColor
from playwright.sync_api import Page

from vit.panels import LINES

from .conftest import open_accordion

CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")
# What turns without end, as a spinner does, fades no colour.
FADED = """document.getAnimations().every(one =>
    one.playState === "finished" || one.effect.getComputedTiming().endTime === Infinity)"""


def screenshot(page: Page, where: str) -> np.ndarray:
    shot = page.locator(where).first.screenshot(animations="disabled")
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))


def luminance(pixels: np.ndarray) -> np.ndarray:
    parts = pixels / 255
    parts = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return parts @ (0.2126, 0.7152, 0.0722)


def contrast(a: np.ndarray, b: np.ndarray) -> float:
    dark, light = sorted((float(luminance(a)), float(luminance(b))))
    return (light + 0.05) / (dark + 0.05)


def check_texts(page: Page) -> None:
    page.mouse.move(0, 0)
    page.wait_for_function(FADED)
    assert page.evaluate(CONTRAST) == {}


def open_page(page: Page, scheme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=scheme)
    page.reload()
    page.locator("#vit-overlay img").first.wait_for()
    dark = page.evaluate("document.body.classList.contains('dark')")
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_vit_tab_can_be_read(page: Page, scheme: Literal["light", "dark"]) -> None:
    open_page(page, scheme)
    for panel in ("How the map is made", "All layers and heads", "Does the map", "The model:"):
        open_accordion(page, panel)
    page.locator("#vit-test").click()
    page.get_by_text("area under the curve").wait_for()
    check_texts(page)
    # Letters in a picture: "layer 1" and so on, left of the small maps.
    page.locator("#vit-heads img").wait_for()
    names = screenshot(page, "#vit-heads img")[60:90, 4:50].reshape(-1, 3)
    order = luminance(names).argsort()
    assert contrast(names[order[0]], names[order[-1]]) > 4.5
    # Lines of a chart need less.
    page.locator("#vit-deletion").locator("svg.marks, canvas").first.wait_for()
    chart = screenshot(page, "#vit-deletion").reshape(-1, 3)
    colours, counts = np.unique(chart, axis=0, return_counts=True)
    for name, colour in LINES.items():
        line = np.array(ImageColor.getrgb(colour))
        assert (np.abs(chart.astype(int) - line).max(axis=1) < 12).any(), f"no line for {name}"
        assert contrast(line, colours[counts.argmax()]) >= 3, name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_segmentation_tab_can_be_read(page: Page, scheme: Literal["light", "dark"]) -> None:
    open_page(page, scheme)
    page.get_by_role("tab", name="Segmentation").click()
    page.locator("#seg-prompt textarea").fill("the blue car, a dog, a piano: 0.9 -grass")
    page.locator("#seg-run").click()
    page.locator("#seg-result .legend-item").first.wait_for()
    page.locator("#seg-status").get_by_text("Nothing found for").first.wait_for()
    for panel in ("More settings", "Several pictures at once", "Correct by hand"):
        open_accordion(page, panel)
    page.locator("#seg-tool").get_by_text("Draw a box").wait_for()
    check_texts(page)
    page.locator("#seg-compare").click()
    page.locator("#seg-gallery .thumbnail-item img").nth(2).wait_for()
    check_texts(page)


# The colours of a field's frame, of what is around it, of its hint, and of what is behind that.
COLOURS = """field => {
    const around = getComputedStyle(field.closest(".block"))
    const own = getComputedStyle(field)
    const colours = [own.borderTopColor, around.backgroundColor,
        getComputedStyle(field, "::placeholder").color, own.backgroundColor]
    return colours.map(colour => colour.match(/\\d+/g).slice(0, 3).map(Number))
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("field", ["#seg-url input", "#seg-prompt textarea"])
def test_a_text_field_shows_its_hint_and_that_it_has_the_focus(
    page: Page, scheme: Literal["light", "dark"], field: str
) -> None:
    open_page(page, scheme)
    page.get_by_role("tab", name="Segmentation").click()
    page.locator(field).fill("")
    page.wait_for_function(FADED)
    frame, around, hint, behind = (np.array(c) for c in page.locator(field).evaluate(COLOURS))
    assert contrast(frame, around) >= 3
    assert contrast(hint, behind) >= 4.5


def test_with_the_systems_own_colours_it_can_be_seen_what_is_chosen(page: Page) -> None:
    page.emulate_media(forced_colors="active")
    box = page.get_by_label("mistakes only")
    pictures = []
    for tick in (box.check, box.uncheck):
        tick()
        box.blur()  # a frame around it says nothing of what is chosen
        page.mouse.move(0, 0)
        page.wait_for_function(FADED)
        shot = Image.open(io.BytesIO(box.screenshot(animations="disabled")))
        pictures.append(np.asarray(shot.convert("L")).astype(int))
    page.emulate_media(forced_colors="none")
    assert (np.abs(pictures[0] - pictures[1]) > 50).mean() > 0.2
