"""What holds for every module alike."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import is_dataclass

import na_convert.passes
import pytest

PASSES = [module.name for module in pkgutil.iter_modules(na_convert.passes.__path__)]
CHANGED_IN_PLACE = {"Freeing", "OnGrid", "Trial"}  # work in progress
CHANGED_IN_PLACE |= {"IFState", "MaxPoolCountsState"}  # from step to step


@pytest.mark.parametrize(
    "name", ["na_convert.neurons", *(f"na_convert.passes.{n}" for n in PASSES)]
)
def test_what_a_pass_found_is_not_changed_afterwards(name: str) -> None:
    module = importlib.import_module(name)
    for each in vars(module).values():
        if inspect.isclass(each) and each.__module__ == name and vars(each).get("__annotations__"):
            assert is_dataclass(each), each.__name__
            frozen = each.__dataclass_params__.frozen  # type: ignore[attr-defined]
            assert frozen is (each.__name__ not in CHANGED_IN_PLACE), each.__name__
