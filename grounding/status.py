"""What the page says about an answer: found or not, what was left out, times and weights."""

import math
import re
from collections.abc import Collection
from dataclasses import replace

from common.images import MAX_SIDE
from grounding.pipeline import FLOOR
from grounding.prompt import looks_foreign
from grounding.select import Choice, Proposals, Selection, choose
from grounding.weights import Origin, Source, names

AND = re.compile(r"\b(and|or)\b")
FULL_WEIGHTS_HELP = (
    "Photos need the public weights, which are downloaded at first use where the Hugging Face hub "
    "gives them; <code>--weights demo</code> and <code>--offline</code> keep the app from asking."
)


def describe(proposals: Proposals, selection: Selection, origin: Origin, choice: Choice) -> str:
    """Say in Markdown what was found, what was left out and why, how fast, and by which weights."""
    lines = [_found(selection), *_missing(proposals, selection, choice), *selection.notes]
    lines += _limits(proposals, selection, choice.threshold)
    stages = " · ".join(f"{stage} {took:.2f} s" for stage, took in proposals.seconds.items())
    lines.append(describe_weights(origin.sources.values()))
    lines.append(f"<small>Time on {origin.device}: {stages}.</small>")
    return "\n\n".join(line for line in lines if line)


def describe_weights(sources: Collection[Source]) -> str:
    """Say in Markdown which weights are in use and, of demo weights, how to get others."""
    if any(source.demo for source in sources):
        why = ", ".join(dict.fromkeys(source.why for source in sources if source.demo))
        return (
            f"<details><summary>⚠️ Weights in use: <b>{names(sources)}</b>, which know only the "
            f"drawn objects of the samples.</summary>Why: {why}. {FULL_WEIGHTS_HELP}</details>"
        )
    return f"<small>Weights in use: {names(sources)}.</small>"


def _found(selection: Selection) -> str:
    labels, on = selection.regions.labels, selection.on
    wanted = [on[i] for i, label in enumerate(labels) if label in selection.query.phrases]
    if not wanted:
        return ""
    off = wanted.count(False)
    hidden = f" {off} switched off." if off else ""
    return f"**Found {len(wanted)} {'region' if len(wanted) == 1 else 'regions'}.**{hidden}"


def _missing(proposals: Proposals, selection: Selection, choice: Choice) -> list[str]:
    """Say of each phrase without a detection how far it was from one."""
    query = proposals.query
    asked = [*query.phrases, *query.negatives]
    missing = [phrase for phrase in asked if phrase not in selection.regions.labels]
    absent = [phrase for phrase in missing if not proposals.best.get(phrase)]
    lines = [_why_hidden(phrase, proposals, choice) for phrase in missing if phrase not in absent]
    if absent:
        # A box has the phrase that fits it best; the others' scores there are not known.
        rivals = ", or another phrase fits better there" if len(asked) > 1 else ""
        lowest = min(FLOOR, *(query.thresholds.get(phrase, choice.threshold) for phrase in absent))
        text = f"**Nothing found for {_listed(absent)}**: no part of the picture scores "
        text += f"{lowest:.2f} or more{rivals}; try other words.{_hint(absent)}"
        lines = [text, *lines]
    return lines


def _why_hidden(phrase: str, proposals: Proposals, choice: Choice) -> str:
    """Say why a phrase that has been found somewhere has no detection, if it is to be said here."""
    query, labels, best = proposals.query, proposals.regions.labels, proposals.best[phrase]
    limit = query.thresholds.get(phrase, choice.threshold)
    if best >= limit:
        if phrase in {labels[i] for i in proposals.by_hand if not proposals.bits[i].any()}:
            return f"{_listed([phrase])} was dropped by hand."
        # Below the floor `_limits` asks for another Run.
        known = phrase in query.thresholds or choice.threshold >= proposals.floor
        return f"{_listed([phrase])} was found but left out." if known else ""
    shows = math.floor(100 * best + 1e-6) / 100
    # A heat map was cut above it, or others have taken its place.
    run = " and another Run" if phrase not in labels else ""
    advice = "it would be left out at a lower threshold, too"
    if run or _is_shown_at(shows, phrase, proposals, choice):
        advice = f"a threshold of {shows:.2f}{run} would show it"
    return (
        f"**Nothing found for {_listed([phrase])}** with a score of at least {limit:.2f}. "
        f"Its best score is {shows:.2f}; {advice}.{_hint([phrase])}"
    )


def _is_shown_at(threshold: float, phrase: str, proposals: Proposals, choice: Choice) -> bool:
    """Return whether a phrase has a detection at a threshold, with all else as it is chosen."""
    query = proposals.query
    if phrase in query.thresholds:
        limits = query.thresholds | {phrase: threshold}
        proposals = replace(proposals, query=replace(query, thresholds=limits))
    else:
        choice = replace(choice, threshold=threshold)
    _, numbers, _ = choose(proposals, choice)
    return phrase in {proposals.regions.labels[number] for number in numbers}


def _listed(phrases: list[str]) -> str:
    """Return phrases in quotes, as one enumeration.

    >>> _listed(["a dog", "a cat"])
    '“a dog”, “a cat”'
    """
    return ", ".join(map(quote, phrases))


def _hint(phrases: list[str]) -> str:
    """Say what may be wrong with phrases that were not found.

    >>> _hint(["a dog"]), _hint(["a dog and a cat"])
    ('', ' Separate phrases with commas.')
    """
    hints = {
        " Separate phrases with commas.": any(AND.search(phrase) for phrase in phrases),
        " The models know English words best.": any(map(looks_foreign, phrases)),
    }
    return "".join(hint for hint, needed in hints.items() if needed)


def _limits(proposals: Proposals, selection: Selection, threshold: float) -> list[str]:
    lines = []
    height, width = proposals.size
    if threshold < proposals.floor:
        lines.append(
            f"This grounder cut its map at {proposals.floor:.2f}; press Run to cut it lower."
        )
    is_map = proposals.regions.heatmap is not None
    if (
        is_map
        and threshold > proposals.floor
        and {*selection.regions.labels} - {*proposals.query.thresholds}
    ):
        lines.append(
            f"The areas are cut at {proposals.floor:g}; press Run to cut them at {threshold:g}."
        )
    if max(height, width) == MAX_SIDE:
        lines.append(f"The picture was used at {width} × {height} pixels, the most that is used.")
    return lines


def quote(text: str) -> str:
    """Return what somebody typed in quotes, on one line, for Markdown.

    >>> quote("a  dog")
    '“a dog”'
    """
    return f"“{plain(' '.join(text.split()))}”"


def plain(text: str) -> str:
    """Escape what Markdown or HTML would read as markup."""
    return "".join(f"&#{ord(c)};" if not (c.isalnum() or c.isspace()) else c for c in text)
