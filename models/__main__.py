"""``python -m na_convert.models`` is ``na-train``."""

from .cli import main

main()
