"""Which errors mean that memory or a disk is used up; the libraries have no common classes."""

from errno import EDQUOT, ENOSPC


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory, the device's or the machine's, is used up.

    >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    # torch has a class for devices, which cannot be named before torch is imported; for the
    # machine's own memory it has only these words.
    named = type(error).__name__ == "OutOfMemoryError"
    return named or isinstance(error, MemoryError) or "you tried to allocate" in str(error)


def disk_full(error: BaseException) -> bool:
    """Tell whether an error, or one that it repeats, says that there is no room on a disk.

    >>> disk_full(OSError(28, "No space left on device")), disk_full(FileNotFoundError())
    (True, False)
    """
    return getattr(error, "errno", None) in (ENOSPC, EDQUOT) or "No space left" in str(error)
