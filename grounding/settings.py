"""What the page is set to: “More settings”, and all settings as a link that opens the page."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlencode

from grounding.fetch import MAX_URL
from grounding.grounders import GROUNDERS
from grounding.overlay import Style
from grounding.prompt import MAX_PROMPT_CHARACTERS
from grounding.segmenters import SEGMENTERS
from grounding.select import MAX_SHOWN, Choice

LONGEST = {"prompt": MAX_PROMPT_CHARACTERS, "url": MAX_URL}
THRESHOLDS = (0.05, 0.95)  # lowest and highest
# Lowest and highest value of each of “More settings”, in their order on the page.
RANGES = {
    "count": (1, MAX_SHOWN),
    "min_area": (0.0, 20.0),
    "best_only": (0, 1),
    "whole": (0, 1),
    "opacity": (0.1, 1.0),
    "outline": (0, 6),
}


@dataclass(frozen=True)
class Settings:
    """Hold what “More settings” says: which detections are shown, and how they are painted."""

    choice: Choice = field(default_factory=lambda: Choice(0.0))
    style: Style = field(default_factory=Style)

    def values(self) -> dict[str, float]:
        """Return the value of each of `RANGES`, in its order."""
        said = asdict(self.choice) | asdict(self.style)
        return {name: said[name] for name in RANGES}


def read_settings(
    count: float, min_area: float, best_only: float, whole: float, opacity: float, outline: float
) -> Settings:
    """Return the settings that the components say, in the order of `RANGES`."""
    choice = Choice(0.0, int(count), min_area, bool(best_only), bool(whole))
    return Settings(choice, Style(opacity, int(outline)))


def settings_link(asked: Mapping[str, Any], threshold: float, settings: Settings) -> str:
    """Return a Markdown link that opens the page with these settings.

    Args:
        asked: Prompt, names of the models and, if the picture has one, its address.
        threshold: Where the slider stands.
        settings: What differs from the usual is in the link.
    """
    names = ("prompt", "grounder", "segmenter", "url")
    values = {name: asked[name] for name in names if asked[name]}
    usual = Settings().values()
    more = {k: f"{v:g}" for k, v in settings.values().items() if v != usual[k]}
    query = urlencode(values | {"threshold": f"{threshold:g}"} | more)
    without = "" if "url" in values else " (without the picture)"
    return f"<small>[Link to these settings](?{query}){without}</small>"


def settings_from_query(query: Mapping[str, str]) -> dict[str, Any]:
    """Return what a link's query says of the settings; what it says wrongly is passed over."""
    texts = {name: query.get(name, "") for name in LONGEST}
    said: dict[str, Any] = {n: text for n, text in texts.items() if 0 < len(text) <= LONGEST[n]}
    for name, menu in (("grounder", GROUNDERS), ("segmenter", SEGMENTERS)):
        if query.get(name) in menu:
            said[name] = query[name]
    if "grounder" in said:
        said["threshold"] = GROUNDERS[said["grounder"]].threshold
    for name, (low, high) in ({"threshold": THRESHOLDS} | RANGES).items():
        value = _number(query.get(name, ""))
        if value is not None and low <= value <= high:
            said[name] = round(value) if isinstance(low, int) else value
    return said


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
