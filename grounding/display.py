"""What happens when somebody moves, ticks or takes home what is shown: no model runs."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import gradio as gr

from grounding import retouch
from grounding.export import ARCHIVE, File, write_zip
from grounding.grounders import GROUNDERS
from grounding.session import Session, View, look, pack, switch
from grounding.settings import RANGES, Settings, read_settings, settings_from_query
from web.page import new_folder, page_errors

MASKS = "Masks"
OLD_MASKS = "Masks of the picture before"
NOTHING = (gr.skip(),) * 6  # new, of what `show` returns


def show(
    session: Session | None, settings: Settings, threshold: float, **new: Any
) -> tuple[Any, ...]:
    """Show an answer in another way; before the first answer nothing changes.

    `new` is what else the component of the masks gets.

    Returns:
        The picture with its masks, the table, the status, both stages, the picture to click on, and
        the key of the answer.
    """
    if session is None:
        return NOTHING
    with page_errors():
        view = look(session, settings, threshold)
    result = gr.AnnotatedImage(**_numbered(view), **new)
    return result, view.rows, view.status, view.stages, view.canvas, session.key


def _numbered(view: View) -> dict[str, Any]:
    """Return the masks for the page, where two of one phrase have different names."""
    picture, pairs = view.painted
    named, colours = [], {}
    for number, (mask, phrase) in zip(view.numbers, pairs, strict=True):
        name = f"{number} {phrase}"
        named.append((mask, name))
        colours[name] = view.colours[phrase]
    return {"value": (picture, named), "color_map": colours}


def show_corrected(
    session: Session | None, settings: Settings, threshold: float, corrected: str
) -> tuple[Any, ...]:
    """Show a correction of the answer with a key, or say that a run has brought another one."""
    if session and session.key != corrected:
        gr.Warning("A new answer has come meanwhile, without that correction; correct that one.")
    return show(session, settings, threshold)


def move(
    session: Session | None, settings: Settings, threshold: float, grounder: str, key: str
) -> tuple[Any, ...]:
    """Show what scores at least a threshold, unless that is for another grounder's next answer.

    Returns:
        The threshold of what is shown, then as `show`.
    """
    _check_kept(session, key)
    if session is None or session.asked["grounder"] != grounder:
        return gr.skip(), *NOTHING
    return float(threshold), *show(session, settings, threshold)


def choose_grounder(session: Session | None, shown: float, grounder: str) -> float:
    """Return where the slider goes with a grounder: what is shown of its answer, or its own."""
    if session and session.asked["grounder"] == grounder:
        return shown
    return GROUNDERS[grounder].threshold


def name_masks(session: Session | None, key: str, path: str | None, url: str | None) -> Any:
    """Say so where the masks are of another picture than that which is asked about next.

    What the server has forgotten, though there is a key of it on the page, may be of any picture.
    """
    shown = session or key
    return gr.AnnotatedImage(label=_label(session, path, url)) if shown else gr.skip()


def _label(session: Session | None, path: str | None, url: str | None) -> str:
    return MASKS if session and session.is_of(path, url) else OLD_MASKS


def reveal(
    session: Session | None,
    key: str,
    path: str | None,
    url: str | None,
    comparing: bool,
    threshold: float,
    grounder: str,
    *more: Any,
) -> tuple[Any, ...]:
    """Show a new answer, with its details and without an earlier comparison.

    Nothing changes where there is none: the one with that key is shown already.

    Returns:
        The threshold of what is shown, as `show`, both columns of details, that of the comparison
        and its words, and the settings: the server may have forgotten what “More settings” says.
    """
    if session is None or session.key == key:  # lost between two steps, or refused
        return gr.skip(), *NOTHING, *(gr.skip(),) * 5
    settings = read_settings(*more)
    # The slider may have been moved meanwhile, or another grounder chosen, whose slider it is now.
    asked = session.asked
    shown = float(threshold) if asked["grounder"] == grounder else asked["threshold"]
    details = (gr.Column(visible=True),) * 2
    comparison = (gr.skip(),) * 2 if comparing else (gr.Column(visible=False), "")
    label = _label(session, path, url)
    return shown, *show(session, settings, shown, label=label), *details, *comparison, settings


def configure(session: Session | None, threshold: float, key: str, *values: Any) -> tuple[Any, ...]:
    """Take over “More settings”."""
    _check_kept(session, key)
    settings = read_settings(*values)
    return settings, *show(session, settings, threshold)


def tick(
    session: Session | None,
    settings: Settings,
    threshold: float,
    key: str,
    rows: list[list[Any]],
) -> tuple[Any, ...]:
    """Switch detections on and off, unless the table with that key is of an earlier answer.

    Returns:
        As `show`.
    """
    _check_kept(session, key)
    if session is None or session.key != key:
        return NOTHING
    switch(session, settings, threshold, rows)
    result, table, *rest = show(session, settings, threshold)
    # Where no more than boxes has changed, the table keeps the keyboard's place. The Delete key
    # leaves an empty cell in the place of a box.
    boxes = all(isinstance(row[0], bool) for row in rows if row)
    same = boxes and [row[1:] for row in rows] == [row[1:] for row in table]
    return result, gr.skip() if same else table, *rest


def undo(
    session: Session | None, settings: Settings, threshold: float, key: str
) -> tuple[Any, ...]:
    """Take back the latest correction, and return as `show`."""
    _check_kept(session, key)
    if session is None or not retouch.undo(session):
        gr.Info("There is nothing to undo.")
    return show(session, settings, threshold)


def take_home(
    session: Session | None, settings: Settings, threshold: float, part: str, key: str
) -> str:
    """Write what is to be taken home and return its path; `key` is of what is shown."""
    _check_kept(session, key)
    with page_errors():
        if session is None:
            raise ValueError("There is nothing to download yet; press Run first.")
        if session.key != key:
            raise ValueError("A new answer has come meanwhile; press Download again for that one.")
        return str(write_download(pack(session, settings, threshold, part)))


def _check_kept(session: Session | None, key: str) -> None:
    """Say that an answer with a key, which is on the page, is not on the server any more."""
    with page_errors():
        if key and session is None:
            raise ValueError("The server no longer keeps this answer; press Run again.")


def write_download(files: Iterator[File]) -> Path:
    """Write a single file as it is, several into a ZIP.

    Raises:
        ValueError: If there is none.
    """
    first, second = next(files, None), next(files, None)
    if first is None:
        raise ValueError("Nothing is shown, so there is nothing of that kind to download.")
    folder = new_folder()
    if second is None:
        name, content = first
        path = folder / Path(name).name
        path.write_bytes(content)
        return path
    write_zip(folder / ARCHIVE, chain((first, second), files))
    return folder / ARCHIVE


def follow_link(request: gr.Request, urls: bool) -> list[Any]:
    """Return which tab to open and what to put into the components that `build_tab` returns.

    Without `urls` there is no field for addresses.
    """
    said = settings_from_query(dict(request.query_params))
    if not urls:
        said.pop("url", None)
    more = [said.get(name, value) for name, value in Settings().values().items()]
    names = ("prompt", "url", "grounder", "segmenter", "threshold", *RANGES)
    tab = gr.Tabs(selected="segmentation") if said else gr.skip()
    return [tab, read_settings(*more), *(said.get(name, gr.skip()) for name in names)]
