"""The folded panels of the ViT tab in a real browser."""

import io

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, expect

expect.set_options(timeout=60_000)


def picture(page: Page, where: str) -> np.ndarray:
    """Return the picture an <img> shows, as it came from the server."""
    image = page.locator(f"{where} img").first
    image.wait_for()
    answer = page.request.get(image.evaluate("node => node.src"))
    return np.asarray(Image.open(io.BytesIO(answer.body())).convert("RGB"), np.float32)


def choose(page: Page, dropdown: str, option: str) -> None:
    page.locator(f"{dropdown} input").click()
    page.get_by_role("option", name=option).click()


def framed(pixels: np.ndarray) -> list[int]:
    """Return the box of the cyan frame around a patch: left, top, right, bottom."""
    rows, columns = np.nonzero((pixels == (0, 255, 255)).all(-1))
    return [int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())]


def click_patch(page: Page, image: Locator, column: float, row: float) -> None:
    box = image.bounding_box()
    assert box
    image.click(position={"x": column * box["width"] / 8, "y": row * box["height"] / 8})
    page.locator("#vit-patch-looks img").wait_for()


def test_two_methods_side_by_side_and_the_test(page: Page) -> None:
    plain = picture(page, "#vit-overlay")
    choose(page, "#vit-other-method", "Transformer attribution")
    other = picture(page, "#vit-other")
    assert np.abs(other - plain).mean() > 3
    expect(page.locator("#vit-other")).to_contain_text("For ")
    page.get_by_text("Does the map matter?").click()
    page.locator("#vit-test").click()
    text = page.locator("#vit-test-text")
    expect(text).to_contain_text("area under the curve")
    choose(page, "#vit-method", "Gradient-weighted rollout")
    expect(text).not_to_contain_text("area under the curve")  # it was about another map


def test_a_click_shows_the_patch(page: Page) -> None:
    seen = page.locator("#vit-seen img").first
    seen.wait_for()
    click_patch(page, seen, 2.5, 5.5)
    assert framed(picture(page, "#vit-patch-looks")) == [112, 280, 167, 335]
    assert framed(picture(page, "#vit-patch-seen-by")) == [112, 280, 167, 335]
