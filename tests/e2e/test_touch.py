"""The page on a phone, by finger."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from .conftest import opened, settle


@pytest.fixture
def phone(app: Any, browser: Browser) -> Iterator[Page]:
    """Open the page on the narrowest phone in use."""
    screen = {"width": 320, "height": 658}
    with opened(app, browser, viewport=screen, has_touch=True, is_mobile=True) as page:
        yield page


def swipe(page: Page, x: float, y: float, right: int = 0, down: int = 0) -> None:
    """Move a finger from a place of the screen, in ten steps."""
    session = page.context.new_cdp_session(page)
    for step in range(11):
        point = {"x": x + right * step / 10, "y": y + down * step / 10}
        kind = "touchMove" if step else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    settle(page)


def test_a_finger_moves_the_handle_and_beside_it_the_page(phone: Page) -> None:
    phone.get_by_role("tab", name="Segmentation").tap()
    phone.locator("#seg-run").tap()
    expect(phone.locator("#seg-details")).to_be_visible()
    pictures, handle = (
        phone.locator("#seg-stages .slider-wrap"),
        phone.locator("#seg-stages .outer"),
    )
    pictures.locator("img").first.wait_for()
    settle(phone)
    pictures.evaluate("node => node.scrollIntoView({block: 'center', behavior: 'instant'})")
    box, before = pictures.bounding_box(), handle.bounding_box()
    swipe(phone, before["x"] + before["width"] / 2, before["y"] + before["height"] / 2, right=60)
    assert handle.bounding_box()["x"] == pytest.approx(before["x"] + 60, abs=3)
    place = phone.evaluate("scrollY")
    swipe(phone, box["x"] + 40, box["y"] + box["height"] * 0.7, down=-150)
    assert phone.evaluate("scrollY") > place + 80


def test_a_sheet_can_be_seen_from_its_left_end_to_its_right(phone: Page) -> None:
    phone.get_by_role("button", name="All layers and heads").tap()
    sheet = phone.locator("#vit-heads .image-container")
    sheet.locator("img").wait_for()
    left, wide = sheet.evaluate(
        "node => [node.querySelector('img').getBoundingClientRect().left"
        " - node.getBoundingClientRect().left, node.scrollWidth]"
    )
    assert left == 0 and wide == 600


def test_samples_move_sideways_and_fit_on_the_screen_with_the_map_below(phone: Page) -> None:
    samples = phone.locator("#vit-samples .grid-wrap")
    tiles = samples.locator(".thumbnail-item")
    place, last = tiles.first.bounding_box(), tiles.last
    swipe(phone, place["x"] + 200, place["y"] + 40, right=-150)
    assert samples.evaluate("node => node.scrollLeft") > 80 and phone.evaluate("scrollX") == 0
    last.tap()
    expect(last).to_have_class(re.compile("selected"))
    answer = phone.locator("#vit-overlay img").bounding_box()
    top = samples.bounding_box()["y"]
    assert answer["y"] + answer["height"] - top < phone.viewport_size["height"]


def test_a_field_that_is_empty_stays_in_sight(phone: Page) -> None:
    phone.get_by_role("tab", name="Segmentation").tap()
    prompt = phone.locator("#seg-prompt textarea")
    prompt.fill("")
    phone.locator("#seg-run").tap()
    expect(phone.get_by_test_id("toast-body").first).to_contain_text("Type what to look for")
    settle(phone)
    expect(prompt).to_be_in_viewport()
    prompt.fill("a dog")
    phone.locator("#seg-run").tap()
    expect(phone.locator("#seg-status")).to_contain_text("Found 1 region")
    settle(phone)
    expect(prompt).not_to_be_in_viewport()
    expect(phone.locator("#seg-result img").first).to_be_in_viewport()


def test_an_own_picture_brings_its_answer_into_sight(phone: Page, tmp_path: Path) -> None:
    phone.locator("#vit-image").get_by_role("button", name="Remove Image").tap()
    phone.locator("#vit-image").scroll_into_view_if_needed()
    expect(phone.locator("#vit-overlay")).not_to_be_in_viewport()
    Image.new("RGB", (40, 30), "green").save(tmp_path / "green.png")
    phone.locator("#vit-image input[type=file]").first.set_input_files(tmp_path / "green.png")
    expect(phone.locator("#vit-note")).to_contain_text("of your picture")
    settle(phone)
    expect(phone.locator("#vit-overlay")).to_be_in_viewport()


def test_what_is_opened_stays_where_it_was_tapped(phone: Page) -> None:
    phone.get_by_role("tab", name="Segmentation").tap()
    phone.locator("#seg-image img").first.wait_for()
    title = phone.get_by_role("button", name="Several pictures at once")
    title.evaluate("node => scrollBy(0, node.getBoundingClientRect().top - 300)")
    settle(phone)
    before = title.bounding_box()["y"]
    title.tap()
    expect(phone.locator("#seg-run-all")).to_be_visible()
    settle(phone)
    assert title.bounding_box()["y"] == pytest.approx(before, abs=20)


def test_no_field_is_so_small_that_a_phone_zooms_into_it(phone: Page) -> None:
    phone.get_by_role("tab", name="Segmentation").tap()
    expect(phone.locator("#seg-threshold input[type=number]")).to_be_visible()
    fields = phone.locator("textarea, input:not([type=range], [type=checkbox], [type=file])")
    sizes = fields.evaluate_all("all => all.map(one => parseFloat(getComputedStyle(one).fontSize))")
    assert len(sizes) > 5 and min(sizes) >= 16
