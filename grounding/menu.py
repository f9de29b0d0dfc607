"""What a line in a menu of models says: which file adapts the model, and where its weights are."""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class ModelEntry:
    """Say where a model comes from.

    Attributes:
        module: File in the menu's folder; its `load(folder, device)` returns the model. It is also
            the name of the bundled demo weights.
        repo: Repository on the hub.
        files: Patterns of the files needed from the repository, the weights' own last.
        kept: Share of the file of weights that the model keeps in memory.
    """

    package: ClassVar[str]

    module: str
    repo: str
    files: tuple[str, ...]
    kept: float = field(default=1.0, kw_only=True)

    def load(self, folder: Path, device: str) -> Any:
        """Load the model from the files in `folder` onto `device`."""
        return import_module(f"{self.package}.{self.module}").load(folder, device)
