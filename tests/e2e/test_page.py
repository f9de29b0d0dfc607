"""Both tabs in a real browser: what is on the screen is compared pixel by pixel."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from common.images import open_image
from grounding.compare import COMPARED
from grounding.demo.samples import SAMPLES, make_sample
from grounding.grounders import GROUNDERS
from grounding.overlay import COLOURS
from grounding.pipeline import run
from grounding.segmenters import SEGMENTERS
from grounding.select import Result
from grounding.store import ModelStore
from grounding.weights import Weights

from .conftest import choose, open_accordion, picture_of, settle

ASSETS = Path(__file__).parents[2] / "assets" / "samples"
CLASSES = {row["label"] for row in json.loads((ASSETS / "cifar10" / "samples.json").read_text())}
SAMPLE = next(sample for sample in SAMPLES if sample.file == "street")


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), np.float32)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=re.compile(name, re.IGNORECASE)).first.click()


def rest(page: Page, locator: Locator) -> None:
    """Wait until a part of the page has its place on the screen."""
    before = None
    while (now := locator.bounding_box()) != before:
        before = now
        page.wait_for_timeout(300)


def screenshot(page: Page, locator: Locator) -> np.ndarray:
    page.mouse.move(0, 0)
    return pixels(Image.open(io.BytesIO(locator.screenshot(animations="disabled"))))


def test_page_answers_soon(app: Any) -> None:
    assert app.seconds < 30  # alone on two cores it takes less than 5


# --- ViT tab --------------------------------------------------------------------------------------


def pick_vit_sample(page: Page, number: int) -> Image.Image:
    """Click a sample, wait until the answer is about it, and return the sample."""
    page.locator("#vit-seen img").first.wait_for()
    thumbnail = page.locator("#vit-samples .thumbnail-item").nth(number)
    plain = picture_of(page, thumbnail.locator("img")).convert("RGB")
    thumbnail.click()
    for _ in range(300):
        seen = picture_of(page, page.locator("#vit-seen img").first)
        small = pixels(seen.resize(plain.size, Image.Resampling.NEAREST))
        if np.abs(small - pixels(plain)).mean() < 2:
            return plain
        page.wait_for_timeout(200)
    pytest.fail("What the model saw is not the chosen sample.")


def test_vit_map_lies_over_the_chosen_sample(page: Page) -> None:
    open_tab(page, "vision transformer")
    maps = []
    for number in (4, 9):
        plain = pick_vit_sample(page, number)
        overlay = pixels(picture_of(page, page.locator("#vit-overlay img").first))
        assert min(overlay.shape[:2]) >= 256
        enlarged = pixels(plain.resize(overlay.shape[1::-1], Image.Resampling.BICUBIC))
        difference = np.abs(overlay - enlarged).mean(2)
        assert difference.mean() > 5, "the overlay is the plain picture"
        assert difference.std() > 3, "the overlay is an even tint, not a map"
        maps.append(overlay)
    assert maps[0].shape != maps[1].shape or np.abs(maps[0] - maps[1]).mean() > 5


def test_vit_answers_with_probabilities(page: Page) -> None:
    open_tab(page, "vision transformer")
    pick_vit_sample(page, 7)
    label = page.locator("#vit-label")
    expect(label).to_contain_text(re.compile("|".join(CLASSES)))
    expect(label).to_contain_text(re.compile(r"\d+\s*%"))


# --- Segmentation tab -----------------------------------------------------------------------------


def answer(grounder: str) -> Result:
    """What the chain itself answers to the sample, without a page."""
    models = ModelStore(Weights("demo", offline=True), "cpu").get(grounder, next(iter(SEGMENTERS)))
    image = open_image(ASSETS / "segmentation" / f"{SAMPLE.file}.png")
    return run(models, image, ", ".join(SAMPLE.prompt), GROUNDERS[grounder].threshold)


@pytest.fixture(scope="module")
def expected() -> Result:
    return answer(next(iter(GROUNDERS)))


def pick_segmentation_sample(page: Page) -> None:
    """Click the sample, which runs, and wait for its masks."""
    prompt, box = ", ".join(SAMPLE.prompt), page.locator("#seg-prompt").get_by_role("textbox")
    box.fill("")  # so that the sample's prompt is seen to arrive
    page.locator("#seg-samples").get_by_text(prompt, exact=True).click()
    expect(box).to_have_value(prompt)
    page.locator("#seg-result img.mask").first.wait_for()


def press_run(page: Page) -> None:
    page.locator("#seg-run").click()


def mask_layers(page: Page) -> dict[str, np.ndarray]:
    """Return the union of the mask layers on the page, bool (H, W), for each label."""
    result = page.locator("#seg-result")
    layers, labels = result.locator("img.mask"), result.locator(".legend-item")
    found: dict[str, np.ndarray] = {}
    for i in range(layers.count()):
        name = labels.nth(i).inner_text().strip().partition(" ")[2]  # after its number
        mask = np.asarray(picture_of(page, layers.nth(i)).convert("RGBA"))[..., 3] > 127
        found[name] = found.get(name, np.zeros_like(mask)) | mask
    return found


def painted(page: Page) -> np.ndarray:
    """Return where the masks change what is on the screen, bool over the picture's own pixels."""
    base = page.locator("#seg-result img.base-image")
    width, height = picture_of(page, base).size
    rest(page, base)  # the page may still be on its way to the answer
    shown = screenshot(page, base)
    page.add_style_tag(content="#seg-result img.mask { visibility: hidden }")
    changed = np.abs(shown - screenshot(page, base)).max(2) > 4
    # The picture is fitted into its box ("object-fit: contain"); cut off the empty borders.
    scale = min(changed.shape[1] / width, changed.shape[0] / height)
    w, h = round(width * scale), round(height * scale)
    x, y = (changed.shape[1] - w) // 2, (changed.shape[0] - h) // 2
    inside = Image.fromarray(changed[y : y + h, x : x + w])
    return np.asarray(inside.resize((width, height), Image.Resampling.NEAREST))


def test_masks_on_the_screen_cover_the_objects(page: Page, expected: Result) -> None:
    open_tab(page, "segment")
    pick_segmentation_sample(page)
    union = expected.masks.masks.any(0)
    layers = mask_layers(page)
    assert set(layers) == set(expected.regions.labels)
    assert iou(np.any(list(layers.values()), axis=0), union) > 0.95
    assert iou(painted(page), union) > 0.85
    scene = make_sample(SAMPLE)
    for phrase, thing in SAMPLE.prompt.items():
        colour, name = thing.split()
        truth = scene.masks[scene.find(name, colour)].any(0)
        assert iou(layers[phrase], truth) > 0.5, phrase


def test_pictures_fill_the_screen_whole(page: Page, expected: Result) -> None:
    """With their masks, and as large as Gradio takes them to be where they are clicked."""
    run_sample(page, expected)
    open_accordion(page, "Correct by hand")
    for part in ("#seg-canvas", "#seg-image", "#seg-result"):
        page.locator(part).get_by_role("button", name=re.compile("fullscreen", re.I)).click()
        frame = page.locator(f"{part}.fullscreen")
        page.wait_for_timeout(700)  # it grows
        assert frame.bounding_box() == {"x": 0, "y": 0, **page.viewport_size}
        image = frame.locator("img").first
        box = image.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= page.viewport_size["height"]
        side = round(min(box["width"], box["height"]))
        whole = pixels(picture_of(page, image).resize((side, side)))
        shown = screenshot(page, image)
        top, left = ((size - side) // 2 for size in shown.shape[:2])
        if part != "#seg-result":
            assert np.abs(shown[top : top + side, left : left + side] - whole).mean() < 12, part
        else:
            assert iou(painted(page), expected.masks.masks.any(0)) > 0.85
        page.keyboard.press("Escape")
        expect(frame).to_have_count(0)


def test_regions_table_and_weights_are_shown(page: Page, expected: Result) -> None:
    open_tab(page, "segment")
    pick_segmentation_sample(page)
    regions = page.locator("#seg-stages img").first
    regions.wait_for()
    plain = pixels(open_image(ASSETS / "segmentation" / f"{SAMPLE.file}.png"))
    drawn = pixels(picture_of(page, regions).resize(plain.shape[1::-1]))
    assert (np.abs(drawn - plain).max(2) > 60).mean() > 0.005, "no box or heat map is drawn"
    for phrase in set(expected.regions.labels):
        expect(page.locator("#seg-table")).to_contain_text(phrase)
    expect(page.locator("#seg-status")).to_contain_text("demo weights")


def test_both_stages_lie_on_each_other_and_can_be_taken_home(page: Page) -> None:
    open_tab(page, "segment")
    pick_segmentation_sample(page)
    stages = page.locator("#seg-stages img")
    expect(stages).to_have_count(2)
    first, second = (picture_of(page, stages.nth(i)) for i in (0, 1))
    assert first.size == second.size and np.abs(pixels(first) - pixels(second)).max() > 60
    with page.expect_download() as download:
        page.locator("#seg-pack").click()
    with ZipFile(download.value.path()) as archive:
        assert {"overlay.png", "coco.json", "manifest.json"} <= set(archive.namelist())
    choose(page, "#seg-part", "coco")
    with page.expect_download() as download:
        page.locator("#seg-pack").click()
    coco = json.loads(Path(download.value.path()).read_text())
    assert download.value.suggested_filename == "coco.json" and coco["annotations"]


def test_the_table_offers_nothing_that_would_spoil_it(page: Page) -> None:
    open_tab(page, "segment")
    pick_segmentation_sample(page)
    cell = page.locator("#seg-table [role=gridcell]:visible").first
    cell.click(button="right")
    menu = page.locator("#seg-table .cell-menu")
    expect(menu).to_have_count(1)  # Gradio makes it, and it stays hidden
    for words in ("Delete row", "Add column to the left"):
        expect(page.get_by_text(words)).to_be_hidden()


@pytest.mark.parametrize(
    ("act", "stays"),
    [
        (lambda page: None, True),  # a link to an address
        (lambda page: page.locator("#seg-image [aria-label='Remove Image']").click(), True),
        (lambda page: page.locator("#seg-samples tbody tr").nth(1).click(), False),
        (lambda page: page.locator("#seg-photos tbody tr").first.click(), False),
        (
            lambda page: page.locator("#seg-image input[type=file]").first.set_input_files(
                ASSETS / "photos" / "chelsea.jpg"
            ),
            False,
        ),
    ],
)
def test_an_old_address_does_not_win_over_a_new_picture(
    page: Page, app: Any, act: Callable[[Page], None], stays: bool
) -> None:
    address = "http://example.org/a.png"
    page.goto(f"{app.url}/?{urlencode({'url': address})}")
    box = page.locator("#seg-url").get_by_role("textbox")
    expect(box).to_have_value(address)
    page.locator("#seg-image img").first.wait_for()
    act(page)
    if stays:
        page.wait_for_timeout(1000)
    expect(box).to_have_value(address if stays else "")


def test_masks_of_an_earlier_picture_are_called_so(page: Page, tmp_path: Path) -> None:
    open_tab(page, "segment")
    pick_segmentation_sample(page)
    label = page.locator("#seg-result label").first
    expect(label).to_have_text("Masks")
    Image.new("RGB", (40, 30), "green").save(tmp_path / "green.png")
    page.locator("#seg-image").get_by_role("button", name="Remove Image").click()
    expect(label).to_have_text("Masks")
    page.locator("#seg-image input[type=file]").first.set_input_files(tmp_path / "green.png")
    expect(label).to_have_text("Masks of the picture before")
    page.locator("#seg-threshold input[type=number]").fill("0.4")  # shows them anew
    expect(page.locator("#seg-status a")).to_have_attribute("href", re.compile("threshold=0.4"))
    expect(label).to_have_text("Masks of the picture before")
    press_run(page)
    expect(label).to_have_text("Masks")
    page.locator("#seg-url").get_by_role("textbox").fill("https://example.org/a.png")
    expect(label).to_have_text("Masks of the picture before")
    page.locator("#seg-url").get_by_role("textbox").fill("")
    expect(label).to_have_text("Masks")


def delay_answers(page: Page) -> None:
    page.route("**/queue/data*", lambda route: (page.wait_for_timeout(1500), route.continue_()))


def test_a_picture_uploaded_during_a_run_is_not_the_one_of_the_answer(
    page: Page, tmp_path: Path
) -> None:
    open_tab(page, "segment")
    page.locator("#seg-image img").first.wait_for()
    Image.new("RGB", (40, 30), "green").save(tmp_path / "green.png")
    delay_answers(page)
    press_run(page)
    page.locator("#seg-image").get_by_role("button", name="Remove Image").click()
    page.locator("#seg-image input[type=file]").first.set_input_files(tmp_path / "green.png")
    page.locator("#seg-result img.mask").first.wait_for()
    expect(page.locator("#seg-result label").first).to_have_text("Masks of the picture before")
    page.unroute_all(behavior="wait")


@pytest.mark.parametrize(("tab", "field"), [("Vision", "#vit-image"), ("Segment", "#seg-image")])
def test_what_asks_for_the_camera_leaves_the_other_sources_in_reach(
    page: Page, tab: str, field: str
) -> None:
    page.set_viewport_size({"width": 1366, "height": 657})
    open_tab(page, tab)
    part = page.locator(field)
    part.get_by_role("button", name="Capture from camera").click()
    expect(part.get_by_text("Click to Access Webcam")).to_be_visible()
    part.get_by_role("button", name="Upload file").click(timeout=5000)
    expect(part.get_by_text("Click to Access Webcam")).to_be_hidden()


def test_what_is_shown_is_what_is_taken_home(page: Page) -> None:
    """Also when the next grounder has been chosen, which brings a threshold of its own: that is
    for its answer. The slider goes back with the first one.
    """
    open_tab(page, "segment")
    expect(page.get_by_role("tabpanel").last.get_by_label("Reset to default")).to_have_count(0)
    pick_segmentation_sample(page)
    threshold = page.locator("#seg-threshold input[type=number]")
    threshold.fill("0")  # the slider takes its lowest
    threshold.press("Tab")
    link = page.locator("#seg-status a")
    expect(link).to_have_attribute("href", re.compile(r"threshold=0\.05"))
    count = page.locator("#seg-result img.mask").count()
    choose(page, "#seg-grounder", "GLIP-T")
    expect(threshold).to_have_value("0.5")
    threshold.fill("0.94")
    threshold.press("Tab")
    page.wait_for_timeout(1000)
    assert page.locator("#seg-result img.mask").count() == count
    box = page.locator("#seg-table input[type=checkbox]").nth(1)  # the first is for all rows
    for left in (count - 1, count):
        box.click()
        wait_for_layers(page, left)
    expect(link).to_have_attribute("href", re.compile(r"threshold=0\.05"))
    with page.expect_download() as download:
        page.locator("#seg-pack").click()
    with ZipFile(download.value.path()) as archive:
        masks = [name for name in archive.namelist() if name.startswith("masks/")]
    assert len(masks) == count
    choose(page, "#seg-grounder", next(iter(GROUNDERS)))
    expect(threshold).to_have_value("0.05")
    press_run(page)
    page.wait_for_timeout(2000)
    expect(page.get_by_test_id("toast-body")).to_have_count(0)


def test_a_number_can_be_typed_key_by_key(page: Page) -> None:
    """On the way to 0.45 are 0 and 0., which are below the slider; and a field may be empty."""
    open_tab(page, "segment")
    pick_segmentation_sample(page)
    threshold, link = (
        page.locator("#seg-threshold input[type=number]"),
        page.locator("#seg-status a"),
    )
    for typed, becomes in (("0.45", "0.45"), ("", "0.05")):
        threshold.click()
        threshold.press("Control+a")
        threshold.press("Delete")
        threshold.press_sequentially(typed, delay=250)
        threshold.press("Tab")
        expect(threshold).to_have_value(becomes)
        expect(link).to_have_attribute("href", re.compile(rf"threshold={re.escape(becomes)}\b"))
    expect(page.get_by_test_id("toast-body")).to_have_count(0)


def test_run_pressed_during_a_run_comes_after_it(page: Page) -> None:
    open_tab(page, "segment")
    pick_segmentation_sample(page)
    delay_answers(page)
    press_run(page)
    page.locator("#seg-prompt").get_by_role("textbox").fill("a piano")
    press_run(page)
    expect(page.locator("#seg-status")).to_contain_text("Nothing found for “a piano”")
    page.unroute_all(behavior="wait")


def test_a_place_that_is_not_given_is_no_place(page: Page) -> None:
    open_tab(page, "segment")
    pick_segmentation_sample(page)
    open_accordion(page, "Correct by hand")
    page.locator("#seg-apply").click()
    expect(page.get_by_test_id("toast-body").first).to_contain_text("Say where")
    expect(page.locator("#seg-status")).not_to_contain_text("Corrections")


def test_the_threshold_moved_during_a_run_counts(page: Page) -> None:
    open_tab(page, "segment")
    page.locator("#seg-prompt").get_by_role("textbox").fill("a dog")
    delay_answers(page)
    press_run(page)
    threshold = page.locator("#seg-threshold input[type=number]")
    threshold.fill("0.93")
    threshold.press("Tab")
    link = page.locator("#seg-status a")
    expect(link).to_have_attribute("href", re.compile(r"threshold=0\.93"))
    expect(page.locator("#seg-result img.mask")).to_have_count(1)
    page.unroute_all(behavior="wait")


@pytest.mark.parametrize(
    ("press", "block"), [("#seg-compare", "#seg-comparison"), ("#seg-run-all", "#seg-all-text")]
)
def test_what_is_refused_leaves_no_empty_block(page: Page, press: str, block: str) -> None:
    open_tab(page, "segment")
    open_accordion(page, "Several pictures at once")
    page.locator("#seg-prompt").get_by_role("textbox").fill("")
    page.locator(press).click()
    expect(page.get_by_test_id("toast-body").first).to_be_visible()
    expect(page.locator(block)).to_be_hidden()


def wait_for_layers(page: Page, count: int) -> None:
    expect(page.locator("#seg-result img.mask")).to_have_count(count)


def run_sample(page: Page, expected: Result) -> None:
    """Open the tab and wait for the masks of the sample."""
    open_tab(page, "segment")
    pick_segmentation_sample(page)
    wait_for_layers(page, len(expected.masks))


def test_rows_and_threshold_change_the_picture_without_a_run(page: Page) -> None:
    """With GLIP: GroundingDINO is surer of both things than the slider goes."""
    expected = answer("GLIP-T")
    open_tab(page, "segment")
    choose(page, "#seg-grounder", "GLIP-T")
    threshold = page.locator("#seg-threshold input[type=number]")
    expect(threshold).to_have_value(str(GROUNDERS["GLIP-T"].threshold))
    pick_segmentation_sample(page)
    count, status = len(expected.masks), page.locator("#seg-status")
    wait_for_layers(page, count)
    times = re.search(r"grounder .* s", status.inner_text())
    box = page.locator("#seg-table input[type=checkbox]").nth(1)  # the first is for all rows
    box.click()
    wait_for_layers(page, count - 1)
    assert expected.regions.labels[0] not in mask_layers(page)
    box.click()
    wait_for_layers(page, count)
    threshold.fill(f"{expected.regions.scores[:2].mean():.2f}")  # between the best two
    threshold.press("Tab")
    wait_for_layers(page, 1)
    expect(status).to_contain_text("Its best score is")
    assert times and times[0] in status.inner_text(), "the models ran again"


def test_more_settings_change_the_picture_without_a_run(page: Page, expected: Result) -> None:
    run_sample(page, expected)
    open_accordion(page, "More settings")
    most = page.get_by_label("number input for Maximum number of detections")
    most.fill("1")
    most.press("Tab")
    wait_for_layers(page, 1)
    expect(page.locator("#seg-status")).to_contain_text(f"the best 1 of {len(expected.masks)}")
    width = page.get_by_label("number input for Width of the outlines")
    solid = [np.count_nonzero(layer_opacity(page) == 255)]
    width.fill("6")
    width.press("Tab")
    for _ in range(50):
        if (now := np.count_nonzero(layer_opacity(page) == 255)) > 1.5 * solid[0]:
            return
        page.wait_for_timeout(200)
    pytest.fail(f"The outline has {now} pixels, and had {solid[0]} when it was thin.")


def layer_opacity(page: Page) -> np.ndarray:
    layer = page.locator("#seg-result img.mask").first
    return np.asarray(picture_of(page, layer).convert("RGBA"))[..., 3]


def test_colours_belong_to_phrases_in_the_order_of_the_prompt(page: Page) -> None:
    open_tab(page, "segment")
    pick_segmentation_sample(page)
    box = page.locator("#seg-prompt").get_by_role("textbox")
    for prompt in ("the blue car, a dog", "a dog, the blue car"):
        box.fill(prompt)
        box.press("Enter")
        expect(page.locator("#seg-status a")).to_have_attribute(
            "href", re.compile(urlencode({"prompt": prompt}).replace("+", "[+]"))
        )
        layers, labels = (page.locator(f"#seg-result {x}") for x in ("img.mask", ".legend-item"))
        expect(layers).not_to_have_count(0)
        for i in range(layers.count()):
            mask = np.asarray(picture_of(page, layers.nth(i)).convert("RGBA"))
            seen = mask[mask[..., 3] > 127][0, :3]
            _, _, phrase = labels.nth(i).inner_text().strip().partition(" ")
            number = prompt.split(", ").index(phrase)
            assert "#" + bytes(seen.tolist()).hex().upper() == COLOURS[number]
    # The button that only a script presses stays hidden on a second run, too.
    expect(page.locator("#seg-zip")).to_be_hidden()


def click_picture(page: Page, point: tuple[float, float]) -> None:
    """Click on the picture to correct, at a point given in its own pixels."""
    image = page.locator("#seg-canvas img").first
    image.wait_for()
    width, height = picture_of(page, image).size
    box = image.bounding_box()
    assert box
    scale = min(box["width"] / width, box["height"] / height)  # "object-fit: contain"
    left, top = (box["width"] - width * scale) / 2, (box["height"] - height * scale) / 2
    image.click(position={"x": left + point[0] * scale, "y": top + point[1] * scale})


def inside(mask: np.ndarray) -> tuple[int, int]:
    """Return a point in the thick of a mask, x and y."""
    rows, columns = np.nonzero(mask)
    middle = np.hypot(columns - columns.mean(), rows - rows.mean()).argmin()
    return int(columns[middle]), int(rows[middle])


def test_clicks_correct_the_answer(page: Page, expected: Result) -> None:
    run_sample(page, expected)
    count = len(expected.masks)
    before = mask_layers(page)
    open_accordion(page, "Correct by hand")
    page.locator("#seg-tool").get_by_text("Drop a detection").click()
    click_picture(page, inside(expected.masks.masks[0]))
    wait_for_layers(page, count - 1)
    assert expected.regions.labels[0] not in mask_layers(page)
    page.locator("#seg-undo").click()
    wait_for_layers(page, count)
    assert all(np.array_equal(mask_layers(page)[name], mask) for name, mask in before.items())
    # A box around the tree, which no phrase names: it counts as the phrase that is chosen.
    page.locator("#seg-tool").get_by_text("Draw a box").click()
    expect(page.locator("#seg-box-phrase")).to_be_visible()
    click_picture(page, (165, 110))
    page.wait_for_timeout(1500)  # until the corner is marked
    click_picture(page, (245, 235))
    expect(page.locator("#seg-status")).to_contain_text("Corrections by hand: 1.")
    wait_for_layers(page, count + 1)


def test_every_click_counts(page: Page, expected: Result) -> None:
    """Also those that come while an earlier one is worked on, and over where its progress shows."""
    run_sample(page, expected)
    open_accordion(page, "Correct by hand")
    image = page.locator("#seg-canvas img").first
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    assert box
    for i in range(5):
        page.mouse.click(box["x"] + box["width"] * (0.1 + 0.2 * i), box["y"] + 0.95 * box["height"])
    status = page.locator("#seg-status")
    expect(status).to_contain_text("Corrections by hand: 5.")
    page.locator("#seg-undo").click()
    expect(status).to_contain_text("Corrections by hand: 4.")


def test_a_correction_needs_no_mouse(page: Page, expected: Result) -> None:
    run_sample(page, expected)
    page.get_by_role("button", name="Correct by hand").press("Enter")
    settle(page)
    page.get_by_label("Drop a detection").press("Space")
    for name, value in zip(("#seg-x", "#seg-y"), inside(expected.masks.masks[0]), strict=True):
        page.locator(name).get_by_role("textbox").fill(str(value))
    page.locator("#seg-apply").press("Enter")
    wait_for_layers(page, len(expected.masks) - 1)


def press_at_the_lower_edge(button: Locator) -> None:
    button.evaluate("node => { node.scrollIntoView({block: 'end'}); node.click() }")


def test_several_pictures_that_are_refused_scroll_nowhere(page: Page) -> None:
    page.set_viewport_size({"width": 1366, "height": 657})
    open_tab(page, "segment")
    open_accordion(page, "Several pictures at once")
    settle(page)
    page.locator("#seg-run-all").evaluate("node => node.scrollIntoView({block: 'end'})")
    before = rest_scrolling(page)
    press_at_the_lower_edge(page.locator("#seg-run-all"))
    expect(page.get_by_test_id("toast-body").first).to_contain_text("Choose pictures first")
    assert rest_scrolling(page) == before


def test_several_pictures_at_once(page: Page, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("This is no picture.")
    open_tab(page, "segment")
    open_accordion(page, "Several pictures at once")
    names = (f"{SAMPLE.file}.png", "fruit.png")
    files = [str(ASSETS / "segmentation" / name) for name in names]
    page.locator("#seg-several input[type=file]").set_input_files([*files, str(bad)])
    expect(page.locator("#seg-several")).to_contain_text("19.0 B")
    page.set_viewport_size({"width": 1366, "height": 657})
    press_at_the_lower_edge(page.locator("#seg-run-all"))
    text = page.locator("#seg-all-text textarea")
    expect(page.locator("#seg-all-text")).to_be_in_viewport(ratio=0.3)  # it grows with the result
    expect(text).to_have_value(
        re.compile(r"2 of 3 pictures done. .*demo weights.\s+bad.png: .*text file")
    )
    with page.expect_download() as download:
        page.locator("#seg-all-zip a").first.click()
    with ZipFile(download.value.path()) as archive:
        folders = {name.split("/")[0] for name in archive.namelist()}
    assert folders == {SAMPLE.file, "fruit"}


def test_why_none_of_several_pictures_was_done(page: Page, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("This is no picture.")
    open_tab(page, "segment")
    open_accordion(page, "Several pictures at once")
    page.locator("#seg-several input[type=file]").set_input_files(str(tmp_path / "bad.png"))
    expect(page.locator("#seg-several")).to_contain_text("19.0 B")
    page.locator("#seg-run-all").click()
    text = page.locator("#seg-all-text textarea")
    expect(text).to_have_value(re.compile(r"0 of 1 pictures done\.\s+bad.png: .*text file"))
    settle(page)
    expect(text).to_be_visible()


def test_compare_shows_every_grounder(page: Page) -> None:
    open_tab(page, "segment")
    pick_segmentation_sample(page)
    page.locator("#seg-compare").click()
    shown = page.locator("#seg-gallery .thumbnail-item img")
    expect(shown).to_have_count(len(COMPARED))
    for name in COMPARED:
        expect(page.locator("#seg-comparison")).to_contain_text(name)
    pictures = [pixels(picture_of(page, shown.nth(i))) for i in range(len(COMPARED))]
    plain = pixels(open_image(ASSETS / "segmentation" / f"{SAMPLE.file}.png"))
    assert all(np.abs(drawn - plain).max() > 60 for drawn in pictures), "nothing is painted"


def test_the_comparison_is_in_sight_above_an_answer(page: Page) -> None:
    """What comes in above what is looked at moves up, out of sight, where the page is scrolled."""
    open_tab(page, "segment")
    pick_segmentation_sample(page)
    page.set_viewport_size({"width": 1280, "height": 800})
    page.evaluate("scrollTo(0, 300)")
    page.locator("#seg-compare").click()
    expect(page.locator("#seg-gallery .thumbnail-item img")).to_have_count(len(COMPARED))
    expect(page.get_by_text("All grounders, side by side")).to_be_in_viewport()
    expect(page.locator("#seg-gallery .thumbnail-item").first).to_be_in_viewport(ratio=1)


def test_a_comparison_that_is_refused_brings_no_older_one_back(page: Page) -> None:
    open_tab(page, "segment")
    pick_segmentation_sample(page)
    page.locator("#seg-compare").click()
    expect(page.locator("#seg-gallery .thumbnail-item img")).to_have_count(len(COMPARED))
    page.locator("#seg-prompt").get_by_role("textbox").fill("a cat")
    press_run(page)
    expect(page.locator("#seg-comparison")).to_be_hidden()
    page.locator("#seg-prompt").get_by_role("textbox").fill("")
    page.locator("#seg-compare").click()
    expect(page.get_by_test_id("toast-body").first).to_contain_text("Type what to look for")
    expect(page.locator("#seg-comparison")).to_be_hidden()


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (1366, 657),  # a laptop
        (390, 860),  # a phone
    ],
)
def test_all_that_a_run_needs_is_in_sight(page: Page, width: int, height: int) -> None:
    page.set_viewport_size({"width": width, "height": height})
    open_tab(page, "segment")
    for part in ("#seg-image img", "#seg-url", "#seg-prompt", "#seg-run"):
        expect(page.locator(part)).to_be_in_viewport(ratio=1)
    assert page.locator("#seg-image img").bounding_box()["height"] > 120


def test_on_a_laptop_the_masks_stay_in_sight_while_they_are_changed(
    page: Page, expected: Result
) -> None:
    page.set_viewport_size({"width": 1366, "height": 657})
    run_sample(page, expected)
    masks, last = page.locator("#seg-result img").first, page.locator("#seg-more input").last
    box = page.locator("#seg-table input[type=checkbox]").nth(1)  # the first is for all rows
    open_accordion(page, "More settings")
    for part in (last, box):  # as the keyboard reaches them
        part.focus()
        page.wait_for_timeout(300)
        expect(masks).to_be_in_viewport(ratio=0.99)
        frame, reached = page.locator("#seg-result").bounding_box(), part.bounding_box()
        assert frame["y"] + frame["height"] <= reached["y"] < 657
    stages = page.locator("#seg-stages")  # they leave their place to what else there is
    stages.evaluate("node => node.scrollIntoView()")
    frame, reached = page.locator("#seg-result").bounding_box(), stages.bounding_box()
    assert frame["y"] + frame["height"] <= reached["y"] < 100


def rest_scrolling(page: Page) -> float:
    """Wait until the page has stopped scrolling, and return where."""
    page.wait_for_timeout(1000)
    return page.evaluate("scrollY")


def test_the_words_of_an_answer_are_brought_into_sight(page: Page, expected: Result) -> None:
    page.set_viewport_size({"width": 1366, "height": 500})
    run_sample(page, expected)
    words = page.locator("#seg-status p").nth(1)
    expect(words).to_be_in_viewport()
    page.evaluate("scrollTo(0, 0)")
    expect(words).not_to_be_in_viewport()
    press_run(page)
    expect(words).to_be_in_viewport()


def test_what_is_refused_scrolls_nowhere(page: Page, expected: Result) -> None:
    page.set_viewport_size({"width": 1366, "height": 520})
    run_sample(page, expected)
    rest_scrolling(page)
    page.locator("#seg-prompt").get_by_role("textbox").fill("")
    page.evaluate("scrollTo(0, 0); document.querySelector('#seg-run').click()")
    expect(page.get_by_test_id("toast-body").first).to_contain_text("Type what to look for")
    assert rest_scrolling(page) == 0


def test_an_answer_leaves_who_has_gone_elsewhere(page: Page, expected: Result) -> None:
    page.set_viewport_size({"width": 1366, "height": 700})
    run_sample(page, expected)
    page.locator("#seg-prompt").get_by_role("textbox").fill("a cat")
    waits = iter((0, 3000))  # for the models, and to be shown
    page.route(
        "**/queue/join*", lambda route: (page.wait_for_timeout(next(waits, 0)), route.continue_())
    )
    press_run(page)
    rest_scrolling(page)
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    assert rest_scrolling(page) > 600
    expect(page.locator("#seg-status")).to_contain_text("“a cat”")
    assert rest_scrolling(page) > 600, "less where the page has become shorter"
    page.unroute_all(behavior="wait")


def test_link_opens_the_page_with_its_settings(page: Page, app: Any) -> None:
    page.goto(f"{app.url}/?prompt=a+snowman&grounder=CLIPSeg&threshold=0.25")
    expect(page.locator("#seg-prompt").get_by_role("textbox")).to_have_value("a snowman")
    expect(page.locator("#seg-threshold input[type=number]")).to_have_value("0.25")
    expect(page.get_by_label("Grounder")).to_have_value("CLIPSeg")


def test_phone_needs_no_sideways_scrolling(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_tab(page, "segment")
    pick_segmentation_sample(page)
    page.locator("#seg-stages").scroll_into_view_if_needed()  # its pictures load when near
    page.locator("#seg-stages img").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    places = [page.locator(name).bounding_box() for name in ("#seg-result", "#seg-samples")]
    assert places[0]["y"] < places[1]["y"], "the samples stand before the answer"


# How far the last column of a table reaches beyond it, and whether a text in it is cut off.
TABLE = """table => {
    const ends = [table, [...table.querySelectorAll("th")].at(-1)]
    const [right, last] = ends.map(node => node.getBoundingClientRect().right)
    const texts = [...table.querySelectorAll("[role=gridcell] .text")]
    return [last - right, texts.filter(node => node.scrollWidth > node.clientWidth + 1).length]
}"""


def test_tables_fit_beside_the_settings(page: Page) -> None:
    page.set_viewport_size({"width": 1024, "height": 800})
    open_tab(page, "segment")
    pick_segmentation_sample(page)
    page.locator("#seg-table [role=gridcell]:visible").first.wait_for()
    beyond, cut = page.locator("#seg-table").evaluate(TABLE)
    assert beyond <= 0 and not cut
    page.locator("#seg-compare").click()
    page.locator("#seg-numbers [role=gridcell]:visible").first.wait_for()
    beyond, cut = page.locator("#seg-numbers").evaluate(TABLE)
    assert beyond <= 0 and not cut


def empty_prompt(page: Page, _folder: Path) -> None:
    page.locator("#seg-prompt").get_by_role("textbox").fill("")
    press_run(page)


def upload_text(page: Page, folder: Path) -> None:
    fake = folder / "holiday.png"
    fake.write_text("This is no picture.")
    remove = page.locator("#seg-image").get_by_role("button", name="Remove Image")
    remove.click()
    page.locator("#seg-image input[type=file]").first.set_input_files(fake)
    remove.wait_for()
    press_run(page)


def upload_text_after_a_sample(page: Page, folder: Path) -> None:
    """A component that an event changes is another object from then on."""
    page.locator("#seg-samples tbody tr").nth(1).click()
    prompt = page.locator("#seg-prompt").get_by_role("textbox")
    expect(prompt).not_to_have_value(re.compile("car"))
    upload_text(page, folder)


def bad_address(page: Page, _folder: Path) -> None:
    page.locator("#seg-url").get_by_role("textbox").fill("http://127.0.0.1/secret.png")
    press_run(page)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (empty_prompt, "Type what to look for"),
        (upload_text, "a text file"),
        (upload_text_after_a_sample, "a text file"),
        (bad_address, "address"),
    ],
)
def test_wrong_input_gets_a_sentence_and_the_app_goes_on(
    page: Page, tmp_path: Path, act: Callable[[Page, Path], None], sentence: str
) -> None:
    open_tab(page, "segment")
    act(page, tmp_path)
    message = page.get_by_test_id("toast-body").first
    expect(message).to_contain_text(sentence)
    assert "Traceback" not in message.inner_text()
    page.reload()
    open_tab(page, "segment")
    pick_segmentation_sample(page)


def test_run_brings_the_answer_into_sight_in_a_frame_as_high_as_its_page(
    page: Page, app: Any
) -> None:
    """As a Space is shown on a phone: the page itself then never scrolls."""
    page.set_viewport_size({"width": 390, "height": 800})
    page.set_content(f"<iframe src='{app.url}' style='width: 100%; height: 4000px'></iframe>")
    frame = page.frame_locator("iframe")
    frame.get_by_role("tab", name="Segmentation").click()
    frame.locator("#seg-run").click()
    page.wait_for_function("scrollY > 1000")
    expect(frame.locator("#seg-right")).to_be_in_viewport(ratio=0.1)
