"""Which weights a model gets, and from where: the hub's, or the small ones bundled with the app."""

import errno
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any

from used_up import disk_full

DEMO_ROOT = Path(__file__).parent.parent / "assets" / "demo"
MODES = ("auto", "full", "demo")
BUNDLED = "bundled demo weights"  # what they are called on the page and in manifests
RETRY_SECONDS = 60.0
ANSWER_SECONDS = 5.0  # in which the hub has to say something
TOO_MANY_REQUESTS = 429

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Source:
    """Name the weights chosen for a model.

    Attributes:
        name: What to call them on the page.
        folder: Where their files lie.
        demo: Whether they are the bundled demo weights.
        why: Why it is those, as half a sentence.
    """

    name: str
    folder: Path
    demo: bool
    why: str = field(default="", compare=False)


def names(sources: Iterable[Source]) -> str:
    """Return what to call weights together.

    >>> names([Source("a/b", Path(), False), Source("c/d", Path(), False)] * 2)
    'a/b and c/d'
    """
    return " and ".join(dict.fromkeys(source.name for source in sources))


@dataclass(frozen=True)
class Origin:
    """Say which weights make an answer, and where the models run."""

    grounder: Source
    segmenter: Source
    device: str = "cpu"

    @property
    def sources(self) -> dict[str, Source]:
        """Return the weights by the role of their model."""
        return {"grounder": self.grounder, "segmenter": self.segmenter}


class Unavailable(Exception):
    """Weights that the hub does not give; says why, as half a sentence."""


class Weights:
    """Choose between the hub's weights and the bundled ones, and fetch the former once."""

    def __init__(
        self, mode: str = "auto", offline: bool = False, folder: Path | None = None
    ) -> None:
        """Take a mode: "full" (hub), "demo" (bundled) or "auto" (hub, else bundled).

        Args:
            mode: One of `MODES`.
            offline: Never use the network; what the hub's cache already holds counts as there.
            folder: Where repositories of the hub lie as OWNER/NAME; looked in before the hub.
        """
        if mode not in MODES:
            raise ValueError(f"weights is {mode!r}; choose one of {', '.join(MODES)}")
        if folder and not folder.is_dir():
            raise ValueError(f"The weights folder {folder} is not there, or is no folder.")
        self.mode, self.offline, self.folder = mode, offline, folder
        self._failed_at, self._failure = -RETRY_SECONDS, ""
        self._asked: set[str] = set()
        # In other threads: one that waits for files notices a Ctrl-C only when all have come.
        self._downloader = ThreadPoolExecutor()
        self._stopping = Event()
        self._lock, self._has_client = Lock(), False

    def locate(self, repo: str, files: tuple[str, ...], demo: str, progress: Progress) -> Source:
        """Return the weights for a model, downloading them if that is what the mode says.

        Args:
            repo: Repository on the hub, like "facebook/sam2.1-hiera-tiny".
            files: Patterns of the files that are needed from it, the weights' own last.
            demo: Name of the bundled folder in `assets/demo`.
            progress: Called with the share done in [0, 1] and a text while a download runs; also
                from other threads.

        Raises:
            ValueError: If the weights cannot be had, in the mode "full" or where there are no demo
                weights, or the disk is full.
        """
        if self.mode == "demo":
            return self._bundled(repo, demo, "the app was started with --weights demo")
        try:
            return Source(repo, self._find(repo, files, progress), demo=False)
        except Unavailable as error:
            if self.mode == "auto":
                return self._bundled(repo, demo, str(error))
            raise ValueError(
                f"The weights of {repo} are not on this machine and cannot be downloaded: {error}. "
                "Try again later, or start the app with --weights auto."
            ) from error

    def _find(self, repo: str, files: tuple[str, ...], progress: Progress) -> Path:
        if folder := self._local(repo, files):
            return folder
        cached = _cached(repo, files)
        if cached and (repo in self._asked or _is_listed(repo)):
            return cached
        try:
            return self._download(repo, files, progress)
        except Unavailable:
            if not cached:
                raise
            return cached  # maybe not all of it, but better than nothing

    def stop(self) -> None:
        """End the downloads that are under way and wait until they have; none begins any more."""
        self._stopping.set()
        # The hub's client ends these at a Ctrl-C only where it arrives in the thread that waits.
        if xet := sys.modules.get("huggingface_hub.utils._xet"):
            xet.abort_xet_session()
        self._downloader.shutdown()

    def describe(self) -> str:
        """Say in a sentence which weights a run will use, before anything is loaded."""
        if self.mode == "demo":
            return "Bundled demo weights (--weights demo)."
        if self.mode == "full":
            return "Full public weights from the Hugging Face hub (--weights full)."
        if self._forbidden():
            return (
                "Offline: full weights where they are in this machine's cache, "
                "else bundled demo weights."
            )
        return (
            "Full public weights, downloaded at first use; "
            "bundled demo weights where the Hugging Face hub cannot be reached."
        )

    def _forbidden(self) -> str:
        """Return what forbids to ask the hub, or nothing."""
        from huggingface_hub import constants

        if self.offline:
            return "the app runs offline"
        if constants.HF_HUB_OFFLINE:
            return "the environment variable HF_HUB_OFFLINE is set"
        return ""

    def _bundled(self, repo: str, demo: str, why: str) -> Source:
        if not (folder := DEMO_ROOT / demo).is_dir():
            raise ValueError(
                f"There are no demo weights to stand in for {repo}: {folder} is missing. Start the "
                "app where the Hugging Face hub can be reached, and without --weights demo."
            )
        return Source(BUNDLED, folder, demo=True, why=why)

    def _local(self, repo: str, files: tuple[str, ...]) -> Path | None:
        return _if_whole(self.folder / repo, files) if self.folder else None

    def _download(self, repo: str, files: tuple[str, ...], progress: Progress) -> Path:
        if why := self._forbidden():
            raise Unavailable(why)
        if time.monotonic() - self._failed_at < RETRY_SECONDS:
            raise Unavailable(self._failure)
        progress(0.0, f"Asking the hub for {repo}")
        self._asked.add(repo)  # once is enough for what is in the cache
        try:
            folder = self._fetch(repo, files, _reporting_bar(progress, repo, self._stopping))
        except Exception as error:
            if disk_full(error):
                raise ValueError(
                    f"There is no room on the disk for the weights of {repo}. Make room, or set "
                    "the environment variable HF_HOME to a folder on a larger disk."
                ) from error
            if self._stopping.is_set():
                raise
            print(f"Cannot download {repo}: {type(error).__name__}: {error}")
            raise self._remember(error) from error
        if not (whole := _if_whole(folder, files)):
            raise Unavailable("the Hugging Face hub does not have them")
        return whole

    def _fetch(self, repo: str, files: tuple[str, ...], bar: type) -> Path:
        from huggingface_hub import HfApi, set_client_factory, snapshot_download

        with self._lock:
            if not self._has_client:  # once, as it closes the one that is in use
                set_client_factory(partial(_make_client, self._stopping))
                self._has_client = True
        HfApi().model_info(repo, timeout=ANSWER_SECONDS)  # without the patience of what follows
        wanted = {"allow_patterns": list(files), "etag_timeout": ANSWER_SECONDS, "tqdm_class": bar}
        try:
            return Path(self._downloader.submit(snapshot_download, repo, **wanted).result())
        except KeyboardInterrupt:
            self.stop()
            raise

    def _remember(self, error: Exception) -> Unavailable:
        """Keep a failure for those who ask within the next minute; return it in words."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        if isinstance(error, GatedRepoError):  # by its class it were not found
            return Unavailable(_explain(error))
        if isinstance(error, RepositoryNotFoundError):  # which says nothing of others
            return Unavailable("the Hugging Face hub does not have them")
        self._failure, self._failed_at = _explain(error), time.monotonic()
        return Unavailable(self._failure)


def _explain(error: Exception) -> str:
    """Return why there is no download, as half a sentence."""
    # The hub's client lets its HTTP library's errors through, and its versions use different
    # libraries, so there is no narrower class to name.
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            "the folder for downloads cannot be written; the environment variable HF_HOME names "
            "another"
        )
    return {
        401: "the Hugging Face hub refuses the token of this machine",
        403: "the Hugging Face hub does not let this machine have them",
        429: "the Hugging Face hub has been asked too often from here",
    }.get(status, "the Hugging Face hub did not answer")


def _cached(repo: str, files: tuple[str, ...]) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(repo, allow_patterns=list(files), local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    return _if_whole(Path(folder), files)


def _is_listed(repo: str) -> bool:
    """Return whether the hub's client knows which files belong to what is in its cache."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        return bool(get_cached_repo_tree(repo))
    except CachedRepoTreeNotFoundError:  # from another program, which may have wanted less
        return False


def _make_client(stopping: Event) -> Any:
    """Return an HTTP client for the hub that waits a few seconds, and for nothing after a stop.

    By itself the hub's lists files without a limit of time, waits as long as it is told when it has
    asked too often, and calls a silent server again and again.
    """
    from huggingface_hub.utils._http import default_client_factory

    def limit(request: Any) -> None:
        if stopping.is_set():
            raise InterruptedError("the download was stopped")
        limits = request.extensions.get("timeout", {})
        limits |= {what: ANSWER_SECONDS for what, seconds in limits.items() if seconds is None}

    client = default_client_factory()
    hooks = client.event_hooks
    client.event_hooks = {
        "request": [*hooks["request"], limit],
        "response": [*hooks["response"], _refuse_to_wait],
    }
    return client


def _refuse_to_wait(response: Any) -> None:
    if response.status_code == TOO_MANY_REQUESTS:
        response.raise_for_status()


def _if_whole(folder: Path, files: tuple[str, ...]) -> Path | None:
    # A download that was cut off leaves a folder with some of the files, weights coming last.
    return folder if any(folder.glob(files[-1])) else None


def _reporting_bar(progress: Progress, repo: str, stopping: Event) -> type:
    """Return a tqdm class that tells `progress` how many bytes of `repo` have come, until a stop.

    It raises an error then, which ends the download.
    """
    from tqdm.auto import tqdm

    class Bar(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            if stopping.is_set():
                raise InterruptedError("the download was stopped")
            shown = super().update(n)
            if self.unit == "B" and self.total and self.desc != "Downloading bytes":
                text = f"Downloading {repo}: {self.n / 1e6:.0f} of {self.total / 1e6:.0f} MB"
                progress(min(1.0, self.n / self.total), text)
            return shown

    return Bar
