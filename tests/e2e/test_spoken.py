"""What a screen reader finds on the page, by the browser's own account of names and states."""

from itertools import pairwise

from playwright.sync_api import Locator, Page, expect

# Every text that a screen reader would read out unasked, from here on.
LISTEN = """() => {
    window.said = []
    const listen = changes => changes.forEach(({target}) => {
        const element = target.nodeType == Node.ELEMENT_NODE ? target : target.parentElement
        const words = element?.closest("[aria-live]:not([aria-live=off]), [role=status]")?.innerText
        if (words) said.push(words)
    })
    new MutationObserver(listen).observe(
        document.body, {subtree: true, childList: true, characterData: true})
}"""


def test_a_sample_is_called_by_its_class_and_says_whether_it_is_chosen(page: Page) -> None:
    samples = page.locator("#vit-samples")
    expect(samples.get_by_role("button", name="horse", pressed=True)).to_have_count(1)
    samples.get_by_role("button", name="cat", exact=True).first.click()
    expect(samples.get_by_role("button", pressed=True)).to_have_accessible_name("cat")
    expect(samples.get_by_label("Thumbnail")).to_have_count(0)


def test_what_folds_says_whether_it_is_open(page: Page) -> None:
    fold = page.get_by_role("button", name="How the map is made")
    for state in ("false", "true", "false"):
        expect(fold).to_have_attribute("aria-expanded", state)
        fold.press("Enter")


def test_arrows_choose_within_a_named_group(page: Page) -> None:
    page.get_by_role("button", name="How the map is made").press("Enter")
    group = page.get_by_role("group", name="Head fusion")
    expect(group.get_by_role("radio").first).to_have_attribute("name", "vit-fusion")
    group.get_by_role("radio", name="mean").press("ArrowRight")
    expect(group.get_by_role("radio", name="max")).to_be_checked()
    expect(group.get_by_role("radio", name="max")).to_be_focused()


def test_an_answer_is_read_out_and_not_how_long_it_takes(page: Page) -> None:
    page.get_by_role("tab", name="Segmentation").click()
    page.evaluate(LISTEN)
    page.locator("#seg-run").click()
    box = page.get_by_role("checkbox", name="Show a dog")
    expect(box.first).to_be_visible()
    expect(page.get_by_role("checkbox", name="Show all")).to_have_count(1)
    page.locator("#seg-compare").click()
    expect(page.get_by_role("button", name="CLIPSeg: ")).to_be_visible()
    page.wait_for_function("said.some(words => words.includes('Each at its own threshold'))")
    said = page.evaluate("said")
    assert any("Found " in words for words in said)
    assert not any(word in words for words in said for word in ("queue:", "/1.", "common."))


def test_the_pictures_before_and_after_are_named_and_parted_by_arrows(page: Page) -> None:
    page.get_by_role("tab", name="Segmentation").click()
    page.locator("#seg-run").click()
    expect(page.locator("#seg-result img:not([alt=''])")).to_have_count(1)
    expect(page.get_by_alt_text("The picture with its masks", exact=True)).to_have_count(1)
    divider = page.get_by_role("slider", name="Where the picture before ends")
    expect(divider).to_have_attribute("aria-valuenow", "50")
    for name in ("What the grounder found", "What SAM 2 made of it"):
        expect(page.locator("#seg-stages").get_by_alt_text(name)).to_have_count(1)
    for key, now in {"ArrowRight": "55", "ArrowLeft": "50"}.items():
        divider.press(key)
        expect(divider).to_have_attribute("aria-valuenow", now)
    for _ in range(12):
        divider.press("ArrowLeft")
    expect(divider).to_have_attribute("aria-valuenow", "0")


def test_on_a_phone_the_keyboard_goes_from_the_settings_to_the_answer(page: Page) -> None:
    """And from there to the samples, as they stand below each other."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("tab", name="Segmentation").click()
    parts = [page.locator(name) for name in ("#seg-several", "#seg-result", "#seg-samples")]
    assert [*map(_top, parts)] == sorted(map(_top, parts))
    after = "(one, next) => one.compareDocumentPosition(next) & Node.DOCUMENT_POSITION_FOLLOWING"
    for one, following in pairwise(parts):
        assert one.evaluate(after, following.element_handle())


def _top(part: Locator) -> float:
    return part.bounding_box()["y"]
