"""What the page says to screen readers where Gradio says nothing or something else (6.31)."""

import gradio as gr

# Whose words are read out when they change. Not the whole blocks: in these Gradio counts seconds.
_READ_OUT = ("vit-note", "vit-heading", "vit-test-text", "seg-status", "seg-compared")
_WORDS = f":is({', '.join(f'#{name}' for name in _READ_OUT)}) [data-testid=markdown]"
# Gradio makes its parts anew now and then, so they are named whenever the page has changed.
NAME_PARTS = f"""() => {{
    const each = (what, name) => document.querySelectorAll(what).forEach(name)
    const nameParts = () => {{
        each("{_WORDS}", words => words.ariaLive = "polite")
        each(".label-wrap", fold => fold.ariaExpanded = fold.classList.contains("open"))
        each(".thumbnail-item:has(.caption-label)", tile => {{
            tile.removeAttribute("aria-label")
            tile.querySelector("img").alt = ""
        }})
        each("#seg-result .base-image", picture => picture.alt = "The picture with its masks")
        each("#seg-result .mask", layer => layer.alt = "")
        each("#seg-stages img", (picture, place) =>
            picture.alt = ["What the grounder found", "What SAM 2 made of it"][place])
        each("#seg-stages .outer", divider => {{
            const {{x, width}} = divider.getBoundingClientRect()
            const whole = divider.parentElement.getBoundingClientRect()
            divider.tabIndex = 0
            divider.role = "slider"
            divider.ariaLabel = "Where the picture before ends and the one after begins"
            divider.ariaValueNow = Math.round(100 * (x + width / 2 - whole.x) / (whole.width || 1))
        }})
        each("#vit-samples .thumbnail-item", tile =>
            tile.ariaPressed = tile.classList.contains("selected"))
        each("fieldset:has(input[type=radio])", group => {{
            group.ariaLabel = group.querySelector("[data-testid=block-info]")?.textContent
            group.querySelectorAll("input").forEach(choice => choice.name = group.id)
        }})
        each("#seg-table [role=row]", row => {{
            const phrase = row.querySelectorAll("[role=gridcell]")[2]?.textContent.trim()
            const box = row.querySelector("input")
            if (box) box.ariaLabel = phrase ? `Show ${{phrase}}` : "Show all"
        }})
    }}
    let due = 0
    new MutationObserver(() => due ||= requestAnimationFrame(() => {{
        due = 0
        nameParts()
    }})).observe(document.body,
        {{subtree: true, childList: true, characterData: true,
            attributeFilter: ["class", "style"]}})
    nameParts()
}}"""


def translations() -> gr.I18n:
    """Return the words for which Gradio reads out a key, whenever something has been done."""
    return gr.I18n(en={"common.complete": "Done"})
