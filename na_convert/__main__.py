"""``python -m na_convert`` is the command ``na-convert``."""

from .cli import main

main()
