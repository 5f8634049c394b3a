"""What this machine has."""

from __future__ import annotations

import os

NAMES = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")


def beyond_memory(size: int) -> str:
    """What to say of ``size`` bytes that this machine's memory cannot hold; empty where it can, or
    where the system does not tell how much there is."""
    memory = _memory()
    if memory is None or size <= memory:
        return ""
    return f"{size / 2**30:.1f} GiB, and this machine has {memory / 2**30:.1f} GiB of memory"


def _memory() -> int | None:
    """Bytes; None where the system does not tell: it has no sysconf, or not these names."""
    try:
        page, pages = (os.sysconf(name) for name in NAMES)
    except (AttributeError, ValueError, OSError):
        return None
    return page * pages if page > 0 and pages > 0 else None
