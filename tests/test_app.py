"""The command line, the start, and what makes the repository a Space."""

import asyncio
import fnmatch
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from packaging.requirements import Requirement

from common.images import MAX_BYTES
from grounding.fetch import PORTS
from grounding.grounders import GROUNDERS
from grounding.segmenters import SEGMENTERS
from grounding.weights import Weights
from tests.site import wait_until

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FLAGS = {
    "--share": "public",
    "--host": "address",
    "--port": "port",
    "--device": "DEVICE",
    "--memory": "GB",
    "--weights": "{auto,full,demo}",
    "--checkpoints": "train_vit.py",
    "--offline": "never",
    "--no-url": "upload",
    "--url-ports": "PORT",
}
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
# The versions of torch that ZeroGPU Spaces run (November 2026).
ZERO_GPU_TORCH = ("2.8.0", "2.9.1", "2.10.0", "2.11.0")


def python(*arguments: str) -> str:
    environment = os.environ | {"COLUMNS": "200", "GRADIO_ANALYTICS_ENABLED": "False"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def requirements() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name: requirement for requirement in found}


def front_matter() -> dict[str, Any]:
    _, text, _ = README.split("---\n", 2)
    return yaml.safe_load(text)


@pytest.fixture(scope="module")
def usage() -> str:
    return python("app.py", "--help")


@pytest.mark.parametrize(("flag", "words"), FLAGS.items())
def test_help_describes_every_flag(usage: str, flag: str, words: str) -> None:
    lines = [line for line in usage.splitlines() if line.strip().startswith(flag)]
    assert lines, f"--help does not list {flag}"
    start = usage.index(lines[0])
    end = usage.find("\n  --", start)
    assert words in usage[start : end if end > 0 else None]


@pytest.fixture(scope="module")
def imported() -> dict[str, Any]:
    """What a process finds that has imported the app and nothing else."""
    code = """if True:
        import ast, inspect, json, os, sys
        read = []  # what Gradio reads of its sources, to write or compare stubs
        ast.get_source_segment = lambda *_: read.append(1)
        import app
        print(json.dumps({
            "heavy": [*{"torch", "transformers", "sam2"} & {*sys.modules}],
            "read": read,
            "source": inspect.getfile(app.gr.Image),
            "trusted": os.environ["FORWARDED_ALLOW_IPS"],
        }))
    """
    return json.loads(python("-c", code))


def test_importing_the_app_leaves_the_models_for_later(imported: dict[str, Any]) -> None:
    assert imported["heavy"] == []


def test_importing_the_app_writes_no_stubs_for_editors(imported: dict[str, Any]) -> None:
    assert imported["read"] == [] and imported["source"].endswith("image.py")


def test_nobody_says_himself_where_he_comes_from(imported: dict[str, Any]) -> None:
    assert "*" not in imported["trusted"] and "127.0.0.1" in imported["trusted"]


@pytest.mark.parametrize("flag", ["--port", "--url-ports"])
@pytest.mark.parametrize(
    ("port", "taken"), [("0", False), ("1", True), ("65536", False), ("a", False), ("²", False)]
)
def test_ports(flag: str, port: str, taken: bool, capsys: pytest.CaptureFixture[str]) -> None:
    import app

    if taken:
        assert app.parse_args([flag, port])
        return
    with pytest.raises(SystemExit):
        app.parse_args([flag, port])
    assert f"{port!r} is no port; it must be from 1 to 65535" in capsys.readouterr().err


def test_flags_reach_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import app

    given: list[Any] = []
    monkeypatch.setattr(app, "build_page", lambda *values: given.append(values))
    monkeypatch.setattr(app, "launch", lambda *_: None)
    app.main([])
    weights, device, fetch, *rest = given.pop()
    assert (weights.mode, weights.offline, weights.folder) == ("auto", False, None)
    assert (device, rest, fetch.keywords) == ("auto", [None, None], {"ports": PORTS})
    folder = str(tmp_path)
    app.main(["--memory", "2.5", "--offline", "--weights-folder", folder, "--weights", "full",
              "--checkpoints", folder, "--device", "cpu", "--url-ports", "80"])  # fmt: skip
    weights, device, fetch, *rest = given.pop()
    assert (weights.mode, weights.offline, weights.folder) == ("full", True, tmp_path)
    assert (device, rest, fetch.keywords) == ("cpu", [tmp_path, 2.5], {"ports": {80}})
    app.main(["--no-url"])
    assert given.pop()[2] is None
    with pytest.raises(ValueError, match="device"):  # at once, not at the first picture
        app.main(["--device", "cuda:99"])


@pytest.mark.parametrize(("space", "host"), [("a/b", "0.0.0.0"), (None, "127.0.0.1")])
def test_only_a_space_listens_to_everybody(
    monkeypatch: pytest.MonkeyPatch, space: str | None, host: str
) -> None:
    import app

    monkeypatch.delenv("SPACE_ID", raising=False)
    if space:
        monkeypatch.setenv("SPACE_ID", space)
    assert app.parse_args([]).host == host


def test_the_server_has_the_limits_that_strangers_need(monkeypatch: pytest.MonkeyPatch) -> None:
    import app

    given: dict[str, Any] = {}

    class Page:
        _queue = "queue"

        def queue(self, **options: Any) -> "Page":
            given.update(options)
            return self

        launch = queue

    monkeypatch.setattr(app, "close_url_inputs", lambda: None)
    monkeypatch.setattr(app, "delete_files_of_tools", lambda page: given.update(tools=page))
    monkeypatch.setattr(app, "delete_broken_uploads", lambda: given.update(broken=True))
    monkeypatch.setattr(app, "replace_pictures_whole", lambda: given.update(whole=True))
    monkeypatch.setattr(app, "forget_sessions", lambda queue: given.update(forgets=queue))
    page = Page()
    app.launch(page, app.parse_args(["--share", "--host", "::1", "--port", "99"]))
    assert (given["server_name"], given["server_port"], given["share"]) == ("::1", 99, True)
    assert (given["api_open"], given["max_size"], given["tools"]) == (False, 64, page)
    assert given["max_file_size"] == MAX_BYTES and given["state_session_capacity"] == 64
    assert (given["enable_monitoring"], given["run_history"]) == (False, False)
    assert given["broken"] and given["whole"] and given["forgets"] == "queue"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="each account has a folder of its own here")
@pytest.mark.parametrize("chosen", [None, "/tmp/mine"])
def test_files_of_visitors_lie_in_a_folder_of_this_account(chosen: str | None) -> None:
    environment = {name: v for name, v in os.environ.items() if name != "GRADIO_TEMP_DIR"}
    code = "import app, gradio.utils; print(gradio.utils.get_upload_folder())"
    folder = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment | ({"GRADIO_TEMP_DIR": chosen} if chosen else {}),
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert folder == (chosen or f"{tempfile.gettempdir()}/gradio-{os.getuid()}")


def test_ctrl_c_while_a_model_is_at_work_ends_without_a_crash(tmp_path: Path) -> None:
    """Left alone, torch aborts where Python is torn down below it."""
    code = """if True:
        import pathlib, runpy, signal, torch
        import grounding.tab
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background

        def work(*_):
            pathlib.Path(BEGUN).touch()
            while True:
                torch.rand(500, 500) @ torch.rand(500, 500)

        grounding.tab.propose = work
        runpy.run_path("app.py", run_name="__main__")
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    begun, log = tmp_path / "begun", tmp_path / "log.txt"
    code = code.replace("BEGUN", repr(str(begun)))
    flags = ["--port", str(port), "--weights", "demo", "--device", "cpu"]
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *flags], cwd=ROOT, stdout=said, stderr=said
        )
    try:
        given = {"prompt": "a dog", "image": {"url": RED_DOT}}
        wait_until(lambda: ask(port, given))
        wait_until(begun.exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "terminate" not in log.read_text()


RED_DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLv"
    "AAAAAElFTkSuQmCC"
)


def ask(port: int, given: dict[str, Any]) -> bool:
    try:
        url = f"http://127.0.0.1:{port}/gradio_api/call/v2/segment"
        return httpx.post(url, json=given, timeout=60, trust_env=False).is_success
    except httpx.TransportError:
        return False


def test_front_matter_describes_a_gradio_space() -> None:
    space = front_matter()
    assert space["sdk"] == "gradio"
    assert (ROOT / space["app_file"]).is_file()
    assert space["python_version"] == "3.12"
    assert {space["colorFrom"], space["colorTo"]} <= COLOURS
    assert len(space["short_description"]) <= 60
    assert space["title"] and space["emoji"]


def test_space_and_requirements_agree() -> None:
    needed = requirements()
    assert needed["gradio"].specifier.contains(front_matter()["sdk_version"])
    assert all(needed["torch"].specifier.contains(release) for release in ZERO_GPU_TORCH)
    for name, requirement in needed.items():
        assert requirement.specifier.contains(version(name)), f"{name} {version(name)}"


def test_space_names_models_of_the_menus_and_preloads_files_they_load() -> None:
    entries = {entry.repo: entry for entry in (*GROUNDERS.values(), *SEGMENTERS.values())}
    space = front_matter()
    assert set(space["models"]) <= set(entries)
    for line in space["preload_from_hub"]:
        repo, _, files = line.partition(" ")
        assert repo in space["models"]
        for name in files.split(","):
            assert any(fnmatch.fnmatch(name, pattern) for pattern in entries[repo].files), name
        for pattern in entries[repo].files:
            assert fnmatch.filter(files.split(","), pattern), f"{repo}: nothing for {pattern}"


@pytest.mark.parametrize("page", ["README.md", "docs/training.md", "docs/hosting.md"])
def test_links_lead_somewhere(page: str) -> None:
    place, pages = ROOT / page, re.compile(r'(?:\]\(|src=")((?!https?://)[^)"]+)[)"]')
    links = [link.partition("#") for link in pages.findall(place.read_text(encoding="utf-8"))]
    for path, _, part in links:
        target = (place.parent / path).resolve() if path else place
        assert target.exists(), path
        if part:
            heads = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert part in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in heads]


def test_the_page_gives_models_their_memory_and_cleans_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import app

    given: list[Any] = []
    store = app.ModelStore
    monkeypatch.setattr(app, "ModelStore", lambda *how: given.extend(how) or store(*how))
    monkeypatch.setattr(store, "warm_up", lambda _: given.append("warm"))
    for component in (app.gr.Image, app.gr.Slider):  # put back what the page changes
        monkeypatch.setattr(component, "preprocess", component.preprocess)

    async def build() -> Any:  # or Gradio leaves loops of its own behind
        return app.build_page(Weights("demo"), "cpu", None, None, 2.5)

    page = asyncio.run(build())
    assert given[1:] == ["cpu", 2.5] and page.delete_cache == (3600, 3600)
    welcome = next(event.fn for event in page.fns.values() if event.name == "welcome")
    welcome(SimpleNamespace(query_params={}))
    assert given[-1] == "warm", "models load while the first visitor looks around"


def test_mistakes_leave_zero_gpu_as_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    import app

    def refuse() -> None:
        raise ValueError("no")

    monkeypatch.setattr(app, "spaces", SimpleNamespace(GPU=lambda function: function))
    with pytest.raises(app.gr.Error, match="no"):
        app.gpu(refuse)()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--memory", "-1"], "memory for models"),
        (["--host", "nonsense.invalid"], "cannot listen"),
        ([], "nothing can be written in /proc/nothing"),
    ],
)
def test_mistakes_at_the_start_are_sentences(
    flags: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not flags:
        monkeypatch.setenv("GRADIO_TEMP_DIR", "/proc/nothing")
    command = [sys.executable, "app.py", "--weights", "demo", "--offline", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "app.py: " in done.stderr and said in done.stderr
