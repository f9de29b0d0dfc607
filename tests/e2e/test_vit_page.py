"""The ViT tab in a real browser: samples, own pictures, maps, panels and the download."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, Request, expect

from vit.checkpoint import load_checkpoint, save_checkpoint
from vit.facts import find_checkpoints
from vit.model import ViT
from vit.predictor import Predictor
from vit.samples import load_samples, mistakes

from .conftest import choose, open_accordion, picture_of, settle

ASSETS = Path(__file__).parents[2] / "assets"


def picture(page: Page, where: str) -> np.ndarray:
    """Return the picture an <img> shows, as it came from the server."""
    image = page.locator(f"{where} img").first
    image.wait_for()
    return np.asarray(picture_of(page, image).convert("RGB"), np.float32)


def wait_until(page: Page, true: Callable[[], bool]) -> None:
    for _ in range(150):
        if true():
            return
        page.wait_for_timeout(200)
    pytest.fail("The page did not come to show what was expected.")


def framed(pixels: np.ndarray) -> list[int]:
    """Return the box of the cyan frame around a patch, if any: left, top, right, bottom."""
    rows, columns = np.nonzero((pixels == (0, 255, 255)).all(-1))
    if not len(rows):
        return []
    return [int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())]


def click_patch(page: Page, image: Locator, column: float, row: float) -> None:
    """Click where the patch is in a grid of 8 x 8, and wait until it is in sight."""
    box = image.bounding_box()
    assert box
    image.click(position={"x": column * box["width"] / 8, "y": row * box["height"] / 8})
    expect(page.locator("#vit-patch-looks img")).to_be_in_viewport()


def test_two_methods_side_by_side_and_the_test(page: Page) -> None:
    plain = picture(page, "#vit-overlay")
    choose(page, "#vit-other-method", "Transformer attribution")
    other = picture(page, "#vit-other")
    assert np.abs(other - plain).mean() > 3
    expect(page.locator("#vit-other")).to_contain_text("For ")
    open_accordion(page, "Does the map matter?")
    page.locator("#vit-test").click()
    text = page.locator("#vit-test-text")
    expect(text).to_contain_text("area under the curve")
    choose(page, "#vit-other-method", "Gradient-weighted rollout")
    wait_until(page, lambda: np.abs(picture(page, "#vit-other") - other).mean() > 1)
    expect(text).to_contain_text("area under the curve")  # it is about the first map still
    choose(page, "#vit-method", "Gradient-weighted rollout")
    expect(text).not_to_contain_text("area under the curve")  # it was about another map


def test_a_test_is_of_the_map_that_is_shown(page: Page) -> None:
    """A test that ends after another map has been chosen is not shown under that."""
    page.locator("#vit-seen img").first.wait_for()
    open_accordion(page, "Does the map matter?")
    page.locator("#vit-test").click()
    page.locator("#vit-samples .thumbnail-item").first.click()
    page.wait_for_timeout(3000)  # more than the test takes
    expect(page.locator("#vit-test-text")).not_to_contain_text("area under the curve")


def test_a_test_asked_for_while_that_of_another_map_is_running_comes_after_it(page: Page) -> None:
    page.locator("#vit-seen img").first.wait_for()
    open_accordion(page, "Does the map matter?")
    page.locator("#vit-test").click()
    page.locator("#vit-samples .thumbnail-item").first.click()
    expect(page.locator("#vit-note")).to_contain_text("airplane")
    page.locator("#vit-test").click()
    expect(page.locator("#vit-test-text")).to_contain_text("area under the curve")


def test_a_click_shows_the_patch(page: Page) -> None:
    seen = page.locator("#vit-seen img").first
    seen.wait_for()
    click_patch(page, seen, 2.5, 5.5)
    for name in ("#vit-patch-looks", "#vit-patch-seen-by"):
        wait_until(page, lambda name=name: framed(picture(page, name)) == [112, 280, 167, 335])
    fields = [page.locator(f"#vit-{name} input") for name in ("Column", "Row")]
    assert [field.input_value() for field in fields] == ["3", "6"]


def test_a_patch_is_named_without_a_mouse(page: Page) -> None:
    page.locator("#vit-seen img").first.wait_for()
    open_accordion(page, "One patch")
    wait_until(page, lambda: framed(picture(page, "#vit-patch-looks")) == [224, 224, 279, 279])
    page.locator("#vit-Column input").fill("3")
    row = page.locator("#vit-Row input")
    row.fill("9")
    row.press("Enter")
    message = page.get_by_test_id("toast-body").first
    expect(message).to_contain_text("Column and row are 3 and 9; both must be from 1 to 8.")
    row.fill("6")
    row.press("Enter")
    wait_until(page, lambda: framed(picture(page, "#vit-patch-looks")) == [112, 280, 167, 335])


def test_the_width_of_the_page_stays(page: Page) -> None:
    """Whatever is on it, so that nothing jumps."""
    widths = set()
    for act in (
        lambda: page.locator("#vit-seen img").first.wait_for(),
        lambda: page.locator("#vit-image").get_by_role("button", name="Remove Image").click(),
        lambda: page.get_by_role("tab", name="Segmentation").click(),
    ):
        act()
        page.wait_for_timeout(500)
        widths.add(page.locator(".gradio-container").first.bounding_box()["width"])
    assert len(widths) == 1


def test_a_checkpoint_trained_meanwhile_and_a_click_before_it_has_answered(
    page: Page, app: Any
) -> None:
    """The patch that was clicked is one of the new model's, whose patches are larger."""
    shipped = load_checkpoint(next(iter(find_checkpoints(ASSETS).values())))
    model = ViT(replace(shipped.model.config, patch_size=8, depth=2)).eval()
    path = app.checkpoints / "coarse.safetensors"
    save_checkpoint(path, replace(shipped, model=model))
    page.reload()
    page.locator("#vit-seen img").first.wait_for()
    open_accordion(page, "The model: choose one")
    choose(page, "#vit-checkpoint", "checkpoints/coarse")
    click_patch(page, page.locator("#vit-seen img").first, 5, 3)
    wait_until(page, lambda: framed(picture(page, "#vit-patch-looks")) == [224, 112, 335, 223])
    path.unlink()


FLAG = [(220, 40, 40), (40, 220, 40), (40, 40, 220)]


def give_flag(page: Page, folder: Path) -> None:
    """Give the page a picture of three squares side by side."""
    picture_file = Image.new("RGB", (300, 100))
    for number, colour in enumerate(FLAG):
        picture_file.paste(colour, (100 * number, 0, 100 * number + 100, 100))
    picture_file.save(folder / "flag.png")
    page.locator("#vit-image").get_by_role("button", name="Remove Image").click()
    page.locator("#vit-image input[type=file]").first.set_input_files(folder / "flag.png")
    wait_until(page, lambda: is_seen(page, 1))


def is_seen(page: Page, number: int) -> bool:
    shown = picture(page, "#vit-seen")
    return bool(np.abs(shown - FLAG[number]).mean() < 3)


def test_each_new_picture_is_looked_at_once(page: Page, tmp_path: Path) -> None:
    """Gradio says twice that a picture has changed where another one was before."""
    page.locator("#vit-seen img").first.wait_for()
    for number, colour in enumerate(FLAG):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{number}.png")
    begun: list[str] = []

    def write_down(request: Request) -> None:
        if "/queue/join" in request.url:
            picture, *rest = request.post_data_json["data"] or [None]
            if rest and isinstance(picture, dict):  # alone it is asked for whether it is there
                begun.append(picture["path"])

    page.on("request", write_down)
    for number in (0, 1, 2):  # in the place of the sample, and of each other
        upload = page.locator("#vit-image input[type=file]").first
        upload.set_input_files(tmp_path / f"{number}.png")
        wait_until(page, lambda number=number: is_seen(page, number))
        page.wait_for_timeout(700)
    assert [Path(path).stem for path in begun] == ["0", "1", "2"]
    page.locator("#vit-samples .thumbnail-item").first.click()
    expect(page.locator("#vit-note")).to_contain_text("True label: airplane")
    page.wait_for_timeout(700)
    assert len(begun) == 4


@pytest.mark.parametrize("pause", [0, 60])  # milliseconds
def test_of_several_samples_the_last_one_counts(page: Page, pause: int) -> None:
    tiles, note = page.locator("#vit-samples .thumbnail-item"), page.locator("#vit-note")
    tiles.nth(9).wait_for()
    click = """async ([places, pause]) => {
        for (const place of places) {
            document.querySelectorAll("#vit-samples .thumbnail-item")[place].click()
            await new Promise(done => setTimeout(done, pause))
        }
    }"""
    for places in ([1, 5, 9, 2, 8], [2, 1, 4, 0, 3], [7, 3, 6, 0, 9]):
        page.evaluate(click, [places, pause])
        expect(note).to_contain_text(f"True label: {tiles.nth(places[-1]).inner_text().strip()}")
        settle(page)
        expect(note).to_contain_text(f"True label: {tiles.nth(places[-1]).inner_text().strip()}")


def test_a_damaged_picture_leaves_no_answer_of_another(page: Page, tmp_path: Path) -> None:
    expect(page.locator("#vit-note")).to_contain_text("True label")
    (tmp_path / "bad.png").write_bytes((ASSETS / "screenshots/vit.png").read_bytes()[:5000])
    page.locator("#vit-image input[type=file]").first.set_input_files(tmp_path / "bad.png")
    expect(page.locator("#vit-note")).to_contain_text("is cut off or damaged")
    expect(page.get_by_test_id("toast-body")).to_have_count(1)
    assert page.locator("#vit-seen img").count() == 0


def click_whole(page: Page, across: float) -> None:
    image = page.locator("#vit-whole img").first
    box = image.bounding_box()
    assert box
    image.click(position={"x": box["width"] * across, "y": box["height"] / 2})


def test_a_picture_takes_its_answer_with_it(page: Page) -> None:
    page.locator("#vit-seen img").first.wait_for()
    page.locator("#vit-image [aria-label='Remove Image']").click()
    expect(page.locator("#vit-note")).to_contain_text("Choose a picture first")
    expect(page.locator("#vit-seen img")).to_have_count(0)
    expect(page.locator("#vit-label")).not_to_contain_text("horse")
    expect(page.locator("#vit-samples .thumbnail-item.selected")).to_have_count(0)


def test_a_click_while_the_last_one_is_looked_at(page: Page, tmp_path: Path) -> None:
    """What is seen is in the end what the sliders say."""
    give_flag(page, tmp_path)
    for across in (0.1, 0.9, 0.1, 0.9):
        click_whole(page, across)
        page.wait_for_timeout(250)
    page.wait_for_timeout(1500)
    slider = page.locator("#vit-across input[type=range]")
    wait_until(page, lambda: is_seen(page, round(2 * float(slider.input_value()))))


def test_the_part_that_is_seen_moves(page: Page, tmp_path: Path) -> None:
    expect(page.locator("#vit-part")).to_be_hidden()  # of a sample the model sees all
    give_flag(page, tmp_path)
    whole = picture(page, "#vit-whole")
    assert whole.shape == (213, 640, 3)
    colourful = np.ptp(whole, axis=-1).max(axis=0) > 20
    assert np.flatnonzero(colourful).tolist() == list(range(213, 426))  # the map, and no more
    click_whole(page, 0.9)
    wait_until(page, lambda: is_seen(page, 2))
    expect(page.locator("#vit-note")).to_contain_text("The model saw 100 × 100 of the 300 × 100")
    page.locator("#vit-across input[type=range]").fill("0")
    wait_until(page, lambda: is_seen(page, 0))
    page.locator("#vit-samples .thumbnail-item").first.click()
    expect(page.locator("#vit-part")).to_be_hidden()
    expect(page.locator("#vit-note")).to_contain_text("True label")


def test_on_a_laptop_every_sample_is_picked_with_the_answer_in_sight(page: Page) -> None:
    page.set_viewport_size({"width": 1366, "height": 657})
    before = picture(page, "#vit-overlay")
    page.locator("#vit-samples .thumbnail-item").last.click()
    wait_until(page, lambda: np.abs(picture(page, "#vit-overlay") - before).mean() > 3)
    for part in ("#vit-overlay img", "#vit-seen img", "#vit-note h2"):
        expect(page.locator(part)).to_be_in_viewport(ratio=0.9)


def test_on_a_laptop_the_map_stays_in_sight_while_it_is_changed(page: Page) -> None:
    page.set_viewport_size({"width": 1366, "height": 657})
    before = picture(page, "#vit-overlay")
    open_accordion(page, "How the map is made")
    page.locator("#vit-first input[type=number]").fill("6")
    page.locator("#vit-first input[type=number]").press("Tab")
    wait_until(page, lambda: np.abs(picture(page, "#vit-overlay") - before).mean() > 3)
    assert page.evaluate("scrollY") > 200
    expect(page.locator("#vit-overlay img")).to_be_in_viewport(ratio=0.99)
    page.locator("#vit-other-method input").focus()  # what the keyboard reaches is below the map
    pictures, reached = (
        page.locator(name).bounding_box() for name in ("#vit-pictures", "#vit-other-method input")
    )
    assert reached["y"] >= pictures["y"] + pictures["height"]


@pytest.mark.parametrize("width", [360, 390])
def test_on_a_phone_sample_map_and_answer_are_in_one_view(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.locator("#vit-label").get_by_text("%").first.wait_for()
    seen = [page.locator(name).bounding_box() for name in ("#vit-samples", "#vit-label")]
    assert seen[0]["y"] > 0 and seen[1]["y"] < 800
    for name in ("#vit-overlay", "#vit-seen"):  # the buttons leave the names alone
        names = page.locator(f"{name} > label").bounding_box()
        buttons = page.locator(f"{name} .icon-button-wrapper").bounding_box()
        assert names["x"] + names["width"] <= buttons["x"] + 2


def test_the_samples_are_filtered(page: Page) -> None:
    samples, shown = load_samples(), page.locator("#vit-samples .thumbnail-item")
    page.locator("#vit-seen img").first.wait_for()
    choose(page, "#vit-filter", "cat")
    expect(shown).to_have_count(3)
    shown.nth(1).click()
    cats = [np.asarray(s.picture, np.float32) for s in samples if s.label == "cat"]
    wait_until(page, lambda: np.abs(picture(page, "#vit-seen")[7::14, 7::14] - cats[1]).mean() < 1)
    expect(page.locator("#vit-note")).to_contain_text("True label: cat")
    choose(page, "#vit-filter", "all classes")
    page.locator("#vit-wrong input").check()
    predictor = Predictor(next(iter(find_checkpoints(ASSETS).values())))
    answers = predictor.answers([sample.picture for sample in samples])
    wrong = mistakes(samples, answers, predictor.checkpoint.classes)
    expect(shown).to_have_count(len(wrong))
    expect(page.locator("#vit-heading")).to_contain_text(f"({len(wrong)} of {len(samples)})")
    for number in list(wrong)[:1]:
        expect(shown.first).to_contain_text(f"{samples[number].label} → {wrong[number]}")
        shown.first.click()
        expect(page.locator("#vit-note")).to_contain_text("✗ wrong")
    confused = {samples[number].label for number in wrong}
    choose(page, "#vit-filter", next(s.label for s in samples if s.label not in confused))
    expect(page.locator("#vit-heading")).to_contain_text("No mistakes among these pictures")
    expect(page.locator("#vit-samples")).to_be_hidden()
    choose(page, "#vit-filter", "all classes")
    expect(shown).to_have_count(len(wrong))


def test_the_arrays_are_downloaded(page: Page) -> None:
    page.locator("#vit-seen img").first.wait_for()
    choose(page, "#vit-other-method", "Transformer attribution")
    page.locator("#vit-other img").wait_for()
    open_accordion(page, "How the map is made")
    with page.expect_download() as download:
        page.locator("#vit-pack").click()
    assert download.value.suggested_filename == "vit.npz"
    with np.load(download.value.path()) as arrays:
        assert len(arrays["maps"]) == 2
        assert arrays["box"].tolist() == [0, 0, 32, 32]
        shown = picture(page, "#vit-seen")[7::14, 7::14]
        assert np.abs(arrays["seen"] - shown).max() <= 1
