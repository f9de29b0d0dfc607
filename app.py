"""The app: one page, two tabs. `python app.py --help` lists the flags."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
if hasattr(os, "getuid"):
    # Gradio's own choice, /tmp/gradio, belongs to whoever came first on a shared machine.
    os.environ.setdefault("GRADIO_TEMP_DIR", f"{tempfile.gettempdir()}/gradio-{os.getuid()}")
# Whose word the server takes for who the client is: tunnels and proxies on this machine or network.
os.environ.setdefault(
    "FORWARDED_ALLOW_IPS", "127.0.0.1,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
)

try:  # On ZeroGPU Spaces this import must come before torch's.
    import spaces
except ImportError:
    spaces = None

from web.stubs import no_stubs

with no_stubs():
    import gradio as gr
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware

from common.devices import DEVICES, find_device
from common.images import MAX_BYTES
from grounding.display import follow_link
from grounding.events import Fetch
from grounding.fetch import PORTS, fetch_image
from grounding.layout import CSS as SEGMENTATION_CSS
from grounding.store import ModelStore
from grounding.tab import build_tab as build_segmentation_tab
from grounding.weights import MODES, Weights
from vit.facts import find_checkpoints
from vit.layout import CSS as VIT_CSS
from vit.tab import build_tab as build_vit_tab
from web.doors import Doors
from web.page import QUIET, page_errors
from web.repairs import (
    ZippedPage,
    close_url_inputs,
    delete_broken_uploads,
    delete_files_of_tools,
    forget_sessions,
    forgive_sliders,
    hand_over_files,
    replace_pictures_whole,
)
from web.screen_readers import NAME_PARTS, translations

ASSETS = Path(__file__).parent / "assets"
INTRO = """# ViT attention & text-prompted segmentation
Classify small pictures with a Vision Transformer and see where it looks, or outline anything you
can name in a picture."""
CSS = """
/* What reaches out is clipped, without a scroll box, in which nothing could stay in sight. */
.gradio-container { width: 100% !important; max-width: min(1280px, 100vw) !important;
    margin: 0 auto !important; overflow: clip !important; }
/* Not in the rules for phones below: Gradio writes them so that they reach only what is inside. */
.gradio-container > .main { width: 100%; max-width: none !important;
    padding: 12px clamp(16px, 4vw, 32px) !important; }
.gradio-container h1 { font-size: clamp(22px, 4vw, 26px) !important; }
.gradio-container input:is([type="range"], [type="radio"], [type="checkbox"]):focus-visible {
    outline: 2px solid var(--primary-500); outline-offset: 2px; }
.dark .gradio-container input:is([type="range"], [type="radio"], [type="checkbox"]):focus-visible {
    outline-color: var(--primary-300); }
/* Gradio's small print is too pale to read, and so is white on its primary button. */
.gradio-container { --block-info-text-color: var(--neutral-600);
    --body-text-color-subdued: var(--neutral-600); --input-placeholder-color: var(--neutral-500);
    --block-title-text-color: var(--primary-700); --block-label-text-color: var(--primary-700);
    --checkbox-label-background-fill-selected: var(--primary-600);
    --checkbox-border-color: var(--neutral-500);
    --input-border-width: 1px; --input-border-color: var(--neutral-300);
    --input-border-color-focus: var(--primary-500);
    --button-primary-background-fill: var(--primary-600);
    --button-primary-background-fill-hover: var(--primary-700); }
.dark .gradio-container { --block-info-text-color: var(--neutral-300);
    --input-border-color: var(--neutral-600); --input-border-color-focus: var(--primary-300);
    --checkbox-border-color: var(--neutral-400);
    --body-text-color-subdued: var(--neutral-300); --input-placeholder-color: var(--neutral-300);
    --block-title-text-color: white; --block-label-text-color: white;
    --link-text-color: var(--primary-300); --link-text-color-hover: var(--primary-200);
    --link-text-color-visited: var(--primary-300);
    --button-secondary-background-fill-hover: var(--primary-600); }
.gradio-container button[role="tab"].selected { color: var(--primary-600); }
.dark .gradio-container button[role="tab"].selected { color: var(--primary-300); }
/* The message says what is wrong; what was shown before it stays in sight. */
[data-testid="status-tracker"]:has(> .error) { display: none; }
/* The dot behind the last link, which on a phone is alone. */
.gradio-container footer .divider { display: none !important; }
/* Phones zoom into fields of smaller letters, and do not zoom out again. */
@media (pointer: coarse) {
    /* As large as a finger needs them. */
    .icon-button-wrapper button, .source-selection button { min-width: 34px; min-height: 34px;
        justify-content: center; }
    :is(textarea, input:not([type="range"], [type="radio"], [type="checkbox"])) {
        font-size: 16px !important; }
}
/* "Segmentation" would go into a menu. */
@media (max-width: 340px) {
    .tab-container button { padding: 0 4px !important; }
}
/* Gradio leaves small pictures small there, but reads clicks on them as if they filled it. */
.block.fullscreen .image-container img { object-fit: contain; }
/* What asks for the camera is higher than the field, and would lie over the buttons below. */
.upload-container button > .wrap { height: 100%; min-height: 0 !important; }
.label-wrap { text-align: left; }
/* Beside a title of two lines it would be stretched, and when turned reach out of the page. */
.label-wrap .icon { flex: none; align-self: center; width: 1em; line-height: 1;
    text-align: center; }
.dark .gradio-container { color-scheme: dark; }
/* High contrast: the system paints over what Gradio draws with backgrounds and shadows. */
@media (forced-colors: active) {
    input:is([type="checkbox"], [type="radio"], [type="range"]) { appearance: auto !important; }
    :is(button, input, textarea) { border: 1px solid !important; }
    button[role="tab"].selected { text-decoration: underline 3px; }
    .thumbnail-item.selected { outline: 3px solid Highlight; }
    .legend-item { forced-color-adjust: none; }
}
"""


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; it must be from 1 to 65535")
    return int(text)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="A ViT with its attention maps, and segmentation by text prompts."
    )
    host = "0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1"
    add = parser.add_argument
    add("--share", action="store_true", help="also open a public gradio.live link")
    add("--host", default=host, help="address to listen on; default: %(default)s")
    add("--port", type=_port, default=7860, help="port to listen on; default: %(default)s")
    add("--device", default="auto", help=f"where the segmentation models run: {DEVICES}; "
        "default: %(default)s")  # fmt: skip
    add("--memory", type=float, metavar="GB", help="models are put away, least recently used "
        "first, when they would take more memory of the device; default: half of it")  # fmt: skip
    add("--weights", choices=MODES, default="auto", help="full: public weights from the Hugging "
        "Face hub; demo: the small bundled ones; auto: full if they can be had, else demo; "
        "default: %(default)s")  # fmt: skip
    add("--weights-folder", type=Path, metavar="DIR",
        help="look for public weights in DIR/OWNER/NAME first, named as on the hub")  # fmt: skip
    add("--checkpoints", type=Path, metavar="DIR",
        help="offer the checkpoints of train_vit.py below DIR in the ViT tab, too")  # fmt: skip
    add("--offline", action="store_true", help="never ask the hub; its local cache is still used")
    add("--no-url", action="store_true", help="pictures by upload only, never by their address")
    add("--url-ports", type=_port, nargs="+", default=sorted(PORTS), metavar="PORT", help="ports "
        "of other servers that pictures may be fetched from; default: %(default)s")  # fmt: skip
    return parser.parse_args(argv)


def gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function for ZeroGPU; elsewhere return it as it is."""
    return spaces.GPU(page_errors()(function)) if spaces else function


def build_page(
    weights: Weights,
    device: str,
    fetch: Fetch | None = fetch_image,
    checkpoints: Path | None = None,
    memory: float | None = None,
) -> gr.Blocks:
    """Build the page, with a field for addresses if there is a `fetch`; no model is loaded yet.

    `checkpoints` is a folder of ViT checkpoints to choose from besides those in `assets`; `memory`
    is how many GB the segmentation models may take.
    """
    hand_over_files()
    forgive_sliders()
    with gr.Blocks(title="ViT & segmentation", delete_cache=(3600, 3600)) as page:
        gr.Markdown(INTRO)
        with gr.Tabs() as tabs:
            with gr.Tab("Vision Transformer", id="vit"):
                build_vit_tab(partial(find_checkpoints, ASSETS, checkpoints))
            with gr.Tab("Segmentation", id="segmentation"):
                store = ModelStore(weights, device, memory)
                linked = build_segmentation_tab(store, gpu, fetch)

        def welcome(request: gr.Request) -> list[Any]:
            store.warm_up()
            return follow_link(request, fetch is not None)

        page.load(None, js=NAME_PARTS)
        page.load(welcome, None, [tabs, *linked], **QUIET)
    return page


def main(argv: list[str] | None = None) -> None:
    """Start the app as the command line says."""
    args = parse_args(argv)
    if args.device not in ("auto", "cpu"):
        find_device(args.device)  # say at once that it is missing, not at the first picture
    fetch = None if args.no_url else partial(fetch_image, ports=frozenset(args.url_ports))
    weights = Weights(args.weights, args.offline, args.weights_folder)
    page = build_page(weights, args.device, fetch, args.checkpoints, args.memory)
    try:
        launch(page, args)
    finally:
        weights.stop()


def launch(page: gr.Blocks, args: argparse.Namespace) -> None:
    """Serve the page within the limits that a server for strangers needs."""
    close_url_inputs()
    delete_files_of_tools(page)
    delete_broken_uploads()
    replace_pictures_whole()
    # Closed to requests that pass by the queue, and with it by the limit of models at work.
    page.queue(max_size=64, api_open=False)
    forget_sessions(page._queue)
    page.launch(
        server_name=args.host,
        server_port=args.port,
        share=args.share,
        theme=gr.themes.Soft(primary_hue="indigo"),
        css=CSS + VIT_CSS + SEGMENTATION_CSS,
        max_file_size=MAX_BYTES,
        # A visitor's latest answer takes up to 35 MB.
        state_session_capacity=64,
        app_kwargs={"middleware": [Middleware(Doors), Middleware(ZippedPage)]},
        enable_monitoring=False,
        i18n=translations(),
        run_history=False,
        footer_links=["api"],
        mcp_server=find_spec("mcp") is not None,
    )


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a file on Windows takes few letters
    try:
        main()
        sys.stdout.flush()
        os._exit(0)  # after Ctrl-C; where a model is still at work, Python itself would abort
    except ValueError as error:
        sys.exit(f"app.py: {error}")
    except OSError as error:
        folder = get_upload_folder()
        if str(error.filename).startswith(folder):  # maybe of another user
            sys.exit(
                f"app.py: nothing can be written in {folder} ({error.strerror}); the environment "
                "variable GRADIO_TEMP_DIR names another folder"
            )
        if "empty port" not in str(error):
            raise
        sys.exit("app.py: cannot listen there; choose another --port, or another --host")
