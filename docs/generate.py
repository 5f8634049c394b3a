"""Write the pages and pictures of docs/ that are made from the code.

    python docs/generate.py            # into docs/
    python docs/generate.py FOLDER     # elsewhere, to compare

It needs the packages of the extra `dev`. The same code gives the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # the checkout's own na_convert, whatever is installed

from generator import commands, errors, operators, pictures, python_api, source  # noqa: E402


def pages() -> dict[str, str]:
    """Every generated file under docs/, by its path there."""
    code = source.read()
    return {
        "errors.md": errors.errors_page(code),
        "operators.md": operators.operators_page(code),
        "reference-cli.md": commands.commands_page(),
        "reference-python.md": python_api.python_page(),
        **{f"pictures/{name}": text for name, text in pictures.pictures().items()},
    }


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for name, text in pages().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
