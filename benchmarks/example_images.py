"""Write the images shipped with the example: 600 of CIFAR-10's test set, shuffled with seed 0.

    python benchmarks/example_images.py PATH examples/resnet8-cifar10.npz

PATH is CIFAR-10 in one of the layouts that `na_convert.models.data` reads.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from na_convert.models.data import load


def main(source: str, target: str, count: int = 600) -> None:
    test = load("cifar10", Path(source)).test  # already shuffled with seed 0
    labels = test.labels[:count].numpy().astype(np.uint8)
    np.savez_compressed(target, x=test.images[:count].numpy(), labels=labels)


if __name__ == "__main__":
    main(*sys.argv[1:3])
