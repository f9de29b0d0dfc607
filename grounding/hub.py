"""The Hugging Face hub: what is asked of its client, and what that is kept from.

By itself the client waits without end for a hub that takes a request and says nothing, and as long
as it is told where it has asked too often; and a download goes on after a Ctrl-C until all files
have come (huggingface_hub 1.31 to 2.4).
"""

import errno
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from http import HTTPStatus
from pathlib import Path
from threading import Event, Lock
from typing import Any

MISSING = "the Hugging Face hub does not have them"
ANSWER_SECONDS = 5.0  # in which the hub has to say something

Progress = Callable[[float, str], None]


class Downloads:
    """Fetch repositories, until a stop."""

    def __init__(self) -> None:
        # In other threads: one that waits for files notices a Ctrl-C only when all have come.
        self._downloader = ThreadPoolExecutor()
        self._lock, self._has_client = Lock(), False
        self.stopping = Event()

    def fetch(self, repo: str, files: tuple[str, ...], progress: Progress) -> Path:
        """Return the folder of a repository, in which all files of some patterns are.

        Args:
            repo: Repository on the hub, like "facebook/sam2.1-hiera-tiny".
            files: Patterns of the files that are needed from it.
            progress: Called with the share done in [0, 1] and a text, from other threads.

        Raises:
            Exception: Of the client or the HTTP library below it, of which its versions use
                different ones; InterruptedError after a stop.
        """
        from huggingface_hub import HfApi, set_client_factory, snapshot_download

        with self._lock:
            if not self._has_client:  # once, as it closes the one that is in use
                set_client_factory(partial(_make_client, self.stopping))
                self._has_client = True
        HfApi().model_info(repo, timeout=ANSWER_SECONDS)  # without the patience of what follows
        bar = reporting_bar(progress, repo, self.stopping)
        wanted = {"allow_patterns": list(files), "etag_timeout": ANSWER_SECONDS, "tqdm_class": bar}
        download = self._downloader.submit(snapshot_download, repo, **wanted)
        try:
            while not wait([download], timeout=0.5).done:
                pass  # on Windows a Ctrl-C is heard only between two of them
            return Path(download.result())
        except KeyboardInterrupt:
            self.stop()
            raise

    def stop(self) -> None:
        """End the downloads that are under way and wait until they have; none begins any more."""
        self.stopping.set()
        # The client ends these at a Ctrl-C only where it arrives in the thread that waits.
        if xet := sys.modules.get("huggingface_hub.utils._xet"):
            xet.abort_xet_session()
        self._downloader.shutdown()


def _make_client(stopping: Event) -> Any:
    """Return the client's HTTP client, which waits a few seconds, and for nothing after a stop."""
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
    if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        response.raise_for_status()


def reporting_bar(progress: Progress, repo: str, stopping: Event) -> type:
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


def cached(repo: str, files: tuple[str, ...]) -> Path | None:
    """Return the folder of a repository in the client's cache, if there is one."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, allow_patterns=list(files), local_files_only=True))
    except (LocalEntryNotFoundError, PermissionError):  # of another user
        return None


def is_listed(repo: str) -> bool:
    """Return whether the hub's client knows which files belong to what is in its cache."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        return bool(get_cached_repo_tree(repo))
    except CachedRepoTreeNotFoundError:  # from another program, which may have wanted less
        return False


def forbidden() -> bool:
    """Return whether the environment forbids to ask the hub."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def is_of_one(error: Exception) -> bool:
    """Return whether an error is of one repository and says nothing of others."""
    return _status(error) in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)


def _status(error: Exception) -> int:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    # Where no token is sent, these have 401.
    if isinstance(error, GatedRepoError):
        return HTTPStatus.FORBIDDEN
    if isinstance(error, RepositoryNotFoundError):
        return HTTPStatus.NOT_FOUND
    # The hub's client lets its HTTP library's errors through, and its versions use different
    # libraries, so there is no narrower class to name.
    return getattr(getattr(error, "response", None), "status_code", 0)


def explain(error: Exception) -> str:
    """Return why there is no download, as half a sentence."""
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            "the folder for downloads cannot be written; the environment variable HF_HOME names "
            "another"
        )
    return {
        HTTPStatus.UNAUTHORIZED: "the Hugging Face hub refuses the token of this machine",
        HTTPStatus.FORBIDDEN: "the Hugging Face hub does not let this machine have them",
        HTTPStatus.NOT_FOUND: MISSING,
        HTTPStatus.TOO_MANY_REQUESTS: "the Hugging Face hub has been asked too often from here",
    }.get(_status(error), "the Hugging Face hub did not answer")
