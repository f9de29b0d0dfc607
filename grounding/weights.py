"""Which weights a model gets, and from where: the hub's, or the small ones bundled with the app."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from used_up import disk_full

DEMO_ROOT = Path(__file__).parent.parent / "assets" / "demo"
MODES = ("auto", "full", "demo")
BUNDLED = "bundled demo weights"  # what they are called on the page and in manifests
RETRY_SECONDS = 60.0
ANSWER_SECONDS = 5.0  # in which the hub has to say something

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Source:
    """Name the weights chosen for a model.

    Attributes:
        name: What to call them on the page.
        folder: Where their files lie.
        demo: Whether they are the bundled demo weights.
    """

    name: str
    folder: Path
    demo: bool


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
        self._failed_at = -RETRY_SECONDS

    def locate(self, repo: str, files: tuple[str, ...], demo: str, progress: Progress) -> Source:
        """Return the weights for a model, downloading them if that is what the mode says.

        Args:
            repo: Repository on the hub, like "facebook/sam2.1-hiera-tiny".
            files: Patterns of the files that are needed from it, the weights' own last.
            demo: Name of the bundled folder in `assets/demo`.
            progress: Called with the share done in [0, 1] and a text while a download runs.

        Raises:
            ValueError: If the weights cannot be had, in the mode "full" or where there are no demo
                weights, or the disk is full.
        """
        if self.mode == "demo":
            return self._bundled(repo, demo)
        folder = (
            self._local(repo, files)
            or self._cached(repo, files)
            or self._download(repo, files, progress)
        )
        if folder:
            return Source(repo, folder, demo=False)
        if self.mode == "full":
            hub = "the Hugging Face hub did not answer, or does not have them"
            why = "the app runs offline" if self.offline else hub
            raise ValueError(
                f"The weights of {repo} are not on this machine and cannot be downloaded: {why}. "
                "Try again later, or start the app with --weights auto."
            )
        return self._bundled(repo, demo)

    def describe(self) -> str:
        """Say in a sentence which weights a run will use, before anything is loaded."""
        if self.mode == "demo":
            return "Bundled demo weights (--weights demo)."
        if self.mode == "full":
            return "Full public weights from the Hugging Face hub (--weights full)."
        if self.offline:
            return (
                "Offline: full weights where they are in this machine's cache, "
                "else bundled demo weights."
            )
        return (
            "Full public weights, downloaded at first use; "
            "bundled demo weights where the Hugging Face hub cannot be reached."
        )

    def _bundled(self, repo: str, demo: str) -> Source:
        if not (folder := DEMO_ROOT / demo).is_dir():
            raise ValueError(
                f"There are no demo weights to stand in for {repo}: {folder} is missing. Start the "
                "app where the Hugging Face hub can be reached, and without --weights demo."
            )
        return Source(BUNDLED, folder, demo=True)

    def _local(self, repo: str, files: tuple[str, ...]) -> Path | None:
        return _if_whole(self.folder / repo, files) if self.folder else None

    def _cached(self, repo: str, files: tuple[str, ...]) -> Path | None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            folder = snapshot_download(repo, allow_patterns=list(files), local_files_only=True)
        except LocalEntryNotFoundError:
            return None
        return _if_whole(Path(folder), files)

    def _download(self, repo: str, files: tuple[str, ...], progress: Progress) -> Path | None:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import RepositoryNotFoundError

        if self.offline or time.monotonic() - self._failed_at < RETRY_SECONDS:
            return None
        progress(0.0, f"Asking the hub for {repo}")
        try:
            # The download itself waits without end for a hub that takes the call and says nothing.
            HfApi().model_info(repo, timeout=ANSWER_SECONDS)
            folder = snapshot_download(
                repo,
                allow_patterns=list(files),
                etag_timeout=ANSWER_SECONDS,
                tqdm_class=_reporting_bar(progress, repo),
            )
        except Exception as error:
            if disk_full(error):
                raise ValueError(
                    f"There is no room on the disk for the weights of {repo}. Make room, or set "
                    "the environment variable HF_HOME to a folder on a larger disk."
                ) from error
            # The hub's client lets its HTTP library's errors through, and its versions use
            # different libraries, so there is no narrower class to name.
            print(f"Cannot download {repo}: {type(error).__name__}: {error}")
            if not isinstance(error, RepositoryNotFoundError):  # which says nothing of others
                self._failed_at = time.monotonic()
            return None
        return _if_whole(Path(folder), files)


def _if_whole(folder: Path, files: tuple[str, ...]) -> Path | None:
    # A download that was cut off leaves a folder with some of the files, weights coming last.
    return folder if any(folder.glob(files[-1])) else None


def _reporting_bar(progress: Progress, repo: str) -> type:
    """Return a tqdm class that also tells `progress` how many bytes of `repo` have arrived."""
    from tqdm.auto import tqdm

    class Bar(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if self.unit == "B" and self.total and self.desc != "Downloading bytes":
                text = f"Downloading {repo}: {self.n / 1e6:.0f} of {self.total / 1e6:.0f} MB"
                progress(min(1.0, self.n / self.total), text)
            return shown

    return Bar
