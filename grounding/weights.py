"""Which weights a model gets, and from where: the hub's, or the small ones bundled with the app."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from common.exhausted import disk_full
from grounding import hub
from grounding.hub import Progress

DEMO_ROOT = Path(__file__).parent.parent / "assets" / "demo"
MODES = ("auto", "full", "demo")
BUNDLED = "bundled demo weights"  # what they are called on the page and in manifests
RETRY_SECONDS = 60.0
ALL = ""  # instead of a repository, of what keeps all of them away
NEVER = ("", -math.inf)


@dataclass(frozen=True)
class Source:
    """Name the weights chosen for a model.

    Attributes:
        name: What to call them on the page.
        folder: Where their files lie.
        why: Why it is those, as half a sentence.
    """

    name: str
    folder: Path
    why: str = field(default="", compare=False)

    @property
    def demo(self) -> bool:
        """Return whether they are the bundled demo weights."""
        return self.name == BUNDLED

    @property
    def revision(self) -> str | None:
        """Return the commit, if they are in the hub's cache: it has snapshots/<commit> for each."""
        return self.folder.name if self.folder.parent.name == "snapshots" else None

    @property
    def home(self) -> Path:
        """Return the folder with all that there is of them: the cache has the files elsewhere."""
        return self.folder.parents[1] if self.revision else self.folder


def names(sources: Iterable[Source]) -> str:
    """Return what to call weights together.

    >>> names([Source("a/b", Path()), Source("c/d", Path())] * 2)
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
        self._failures: dict[str, tuple[str, float]] = {}  # why and when, by repository
        self._asked: set[str] = set()
        self._downloads = hub.Downloads()

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
            return Source(repo, self._find(repo, files, progress))
        except Unavailable as error:
            beside = f"; the weights folder has no {repo}/{files[-1]}" if self.folder else ""
            if self.mode == "auto":
                return self._bundled(repo, demo, f"{error}{beside}")
            raise ValueError(
                f"The weights of {repo} are not on this machine and cannot be downloaded: "
                f"{error}{beside}. "
                "Try again later, or start the app with --weights auto."
            ) from error

    def _find(self, repo: str, files: tuple[str, ...], progress: Progress) -> Path:
        if self.folder and (local := _if_whole(self.folder / repo, files)):
            return local
        cached = _if_whole(hub.cached(repo, files), files)
        if cached and (repo in self._asked or hub.is_listed(repo)):
            return cached
        try:
            return self._download(repo, files, progress)
        except Unavailable:
            if not cached:
                raise
            return cached  # maybe not all of it, but better than nothing

    def stop(self) -> None:
        """End the downloads that are under way and wait until they have; none begins any more."""
        self._downloads.stop()

    def describe(self) -> str:
        """Say in a sentence which weights a run will use, before anything is loaded."""
        if self.mode == "demo":
            return "Bundled demo weights (--weights demo)."
        if self.mode == "full":
            return "Public weights from the Hugging Face hub (--weights full)."
        if self._forbidden():
            return (
                "Offline: public weights where they are in this machine's cache, "
                "else bundled demo weights."
            )
        return (
            "Public weights, downloaded at first use; "
            "bundled demo weights where the Hugging Face hub cannot be reached."
        )

    def _forbidden(self) -> str:
        """Return what forbids to ask the hub, or nothing."""
        if self.offline:
            return "the app runs offline"
        if hub.forbidden():
            return "the environment variable HF_HUB_OFFLINE is set"
        return ""

    def _bundled(self, repo: str, demo: str, why: str) -> Source:
        if not (folder := DEMO_ROOT / demo).is_dir():
            raise ValueError(
                f"There are no demo weights to stand in for {repo}: {folder} is missing. Start the "
                "app where the Hugging Face hub can be reached, and without --weights demo."
            )
        return Source(BUNDLED, folder, why=why)

    def _download(self, repo: str, files: tuple[str, ...], progress: Progress) -> Path:
        if why := self._forbidden():
            raise Unavailable(why)
        for place in (repo, ALL):
            why, failed_at = self._failures.get(place, NEVER)
            if time.monotonic() - failed_at < RETRY_SECONDS:
                raise Unavailable(why)
        progress(0.0, f"Asking the hub for {repo}")
        try:
            folder = self._downloads.fetch(repo, files, progress)
        except Exception as error:
            if disk_full(error):
                raise ValueError(
                    f"There is no room on the disk for the weights of {repo}. Make room, or set "
                    "the environment variable HF_HOME to a folder on a larger disk."
                ) from error
            if self._downloads.stopping.is_set():
                raise
            print(f"Cannot download {repo}: {type(error).__name__}: {error}")
            # For those who ask within the next minute.
            why = hub.explain(error)
            self._failures[repo if hub.is_of_one(error) else ALL] = why, time.monotonic()
            raise Unavailable(why) from error
        self._asked.add(repo)  # once is enough for what is in the cache
        if not (whole := _if_whole(folder, files)):
            raise Unavailable(hub.MISSING)
        return whole

    def remedy(self, source: Source) -> str:
        """Say what to do about weights that cannot be loaded."""
        if source.demo:
            return "Get the folder assets/demo anew."
        if not source.revision:
            return f"Put the files of {source.name} into the weights folder anew."
        again = "start the app once where it may ask the hub" if self._forbidden() else "try again"
        return f"Delete their folder (the console says which) and {again}, so that they come anew."


def _if_whole(folder: Path | None, files: tuple[str, ...]) -> Path | None:
    # A download that was cut off leaves a folder with some of the files, weights coming last.
    return folder if folder and any(folder.glob(files[-1])) else None
