"""Which errors mean that memory or a disk is used up; the libraries have no common classes."""

from errno import EDQUOT, ENOSPC

# All that torch says where a machine's own memory is used up, or that of Apple's processors.
TORCH_WORDS = (
    "you tried to allocate",
    "Storage size calculation overflowed",
    "MPS backend out of memory",
    "Invalid buffer size",
)


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory, the device's or the machine's, is used up.

    >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    >>> out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GiB)."))
    True
    """
    # torch has a class for devices, which cannot be named before torch is imported.
    named = type(error).__name__ == "OutOfMemoryError"
    said = any(words in str(error) for words in TORCH_WORDS)
    return named or isinstance(error, MemoryError) or said


def disk_full(error: BaseException) -> bool:
    """Tell whether an error, or one that it repeats, says that there is no room on a disk.

    >>> disk_full(OSError(28, "No space left on device")), disk_full(FileNotFoundError())
    (True, False)
    """
    return getattr(error, "errno", None) in (ENOSPC, EDQUOT) or "No space left" in str(error)
