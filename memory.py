"""Which errors mean that memory has run out; the libraries have no common class for it."""


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory, the device's or the machine's, is used up.

    >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    # torch has a class for devices, which cannot be named before torch is imported; for the
    # machine's own memory it has only these words.
    named = type(error).__name__ == "OutOfMemoryError"
    return named or isinstance(error, MemoryError) or "you tried to allocate" in str(error)
