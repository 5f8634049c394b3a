"""Recipes: what a TOML file may say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from na_convert.models import networks
from na_convert.models.recipe import Stage, as_table, load_recipe

from na_convert.errors import UsageError

_RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.toml"))
_SMALLEST = """
name = "a"
data = "digits"
[network]
name = "mlp"
[float]
epochs = 1
peak_rate = 1
[quantised]
epochs = 0
peak_rate = 0.1
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", _RECIPES, ids=lambda p: p.stem)
def test_the_recipes_of_the_project_are_valid(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.network.name in networks.names()


def test_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, _SMALLEST))
    assert recipe.float == Stage(1, 1.0)
    assert (recipe.seed, recipe.quantiser.bits, recipe.quantiser.noise) == (0, 2, 0.5)
    assert as_table(recipe)["training"]["batch"] == 128


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("epochs = 1", "epoch = 1"), "no setting 'epoch'"),
        (("epochs = 1\n", ""), "'epochs' is missing"),
        (('name = "a"', ""), "'name' is missing"),
        (("peak_rate = 1", 'peak_rate = "fast"'), "'fast' is no float"),
        (("epochs = 1", "epochs = true"), "True is no int"),
        (("epochs = 1", "epochs = -1"), "0 or more"),
        (("[network]", "[network"), "not a readable recipe"),
        (('name = "mlp"', 'name = "mlp"\nwidths = 3'), "a list is needed"),
        (("[quantised]", "[training]\nprecision='int3'\n[quantised]"), "precision"),
        (("[quantised]", "[training]\nschedule='flat'\n[quantised]"), "schedule"),
        (("[quantised]", "[training]\nema=1.0\n[quantised]"), "ema"),
        (("[quantised]", "[report]\ntimesteps=[0]\n[quantised]"), "at least one step"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: tuple[str, str], complaint: str) -> None:
    path = write(tmp_path, _SMALLEST.replace(*change, 1))
    with pytest.raises(UsageError, match=complaint):
        load_recipe(path)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a readable recipe"):
        load_recipe(tmp_path / "none.toml")
