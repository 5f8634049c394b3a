"""Thresholds along identity shortcuts are the largest of the chain, and of no other layer."""

from __future__ import annotations

import numpy as np
import pytest
from na_convert.passes import unit_spikes
from na_convert.passes.tie_shortcuts import Tied, tie_shortcuts

from na_convert.snn import Snn, neuron_nodes, parameters
from na_convert.spec import check_graph

from . import build, spiking

CONV = spiking.CONV
STEPS = np.array([0.2, 0.9, 0.3, 0.5], np.float32).reshape(4, 1, 1)


def chain(*shortcuts: str, steps: tuple[object, ...] = (0.4, 0.3, 0.6, 0.5), more: str = "") -> Snn:
    """Four layers a1 .. a4, the second to the fourth with a shortcut from what is named."""
    body = f"c1 = Conv {CONV} (x, w1, b1)\n{build.stair('c1', 'a1', step='s1')}{more}"
    for k, shortcut in enumerate(shortcuts, start=2):
        body += f"c{k} = Conv {CONV} (a{k - 1}, w2)\nt{k} = Add (c{k}, {shortcut})\n"
        body += build.stair(f"t{k}", f"a{k}", step=f"s{k}")
    last = f"a{len(shortcuts) + 1}"
    weights = {f"s{k}": step for k, step in enumerate(steps[: len(shortcuts) + 1], start=1)}
    head = spiking.HEAD.replace("last", last)
    return spiking.network(body + head, {**spiking.SHAPES, **weights, "half": 0.5})


def thresholds(tied: Tied) -> list[object]:
    check_graph(tied.network.graph, "tie_shortcuts")
    nodes = {n.name: n for n in neuron_nodes(tied.network.graph)}
    for neuron in tied.network.neurons:
        own = parameters(nodes[neuron.name])
        np.testing.assert_allclose(np.ravel(own.threshold), np.ravel(neuron.threshold), rtol=1e-7)
        np.testing.assert_allclose(np.ravel(own.amplitude), np.ravel(neuron.amplitude), rtol=1e-7)
        assert nodes[neuron.name].attrs["initial"] == 0.5
    return [
        n.threshold if isinstance(n.threshold, list) else round(n.threshold / 3, 6)
        for n in tied.network.neurons
    ]


@pytest.mark.parametrize(
    ("shortcuts", "tied"),
    [
        (("a1", "a2", "a3"), [0.6, 0.6, 0.6, 0.6]),
        (("a1", "a1", "a1"), [0.6, 0.6, 0.6, 0.6]),
        (("c1", "a1", "c1"), [0.6, 0.3, 0.6, 0.5]),
        (("c1", "c1", "a2"), [0.4, 0.5, 0.6, 0.5]),
        (("c1", "c1", "c1"), [0.4, 0.3, 0.6, 0.5]),
    ],
)
def test_chains(shortcuts: tuple[str, ...], tied: list[float]) -> None:
    network = chain(*shortcuts)
    found = tie_shortcuts(network)
    assert thresholds(found) == tied
    before = [0.4, 0.3, 0.6, 0.5]
    factors = {
        n.name: pytest.approx(new / old)
        for n, old, new in zip(network.neurons, before, tied, strict=True)
        if new != old
    }
    assert found.raised == factors
    assert {n.op for n in neuron_nodes(found.network.graph)} == {"IF"}
    for neuron in found.network.neurons:
        assert neuron.amplitude == neuron.threshold


def test_the_network_given_is_not_touched() -> None:
    network = chain("a1")
    tie_shortcuts(network)
    assert [n.threshold for n in network.neurons] == pytest.approx([1.2, 0.9])
    found = [float(parameters(n).threshold) for n in neuron_nodes(network.graph)]
    assert found == pytest.approx([1.2, 0.9])


def test_per_channel_the_larger_of_each() -> None:
    tied = tie_shortcuts(chain("a1", steps=(0.4, STEPS)))
    wanted = (3 * np.maximum(STEPS, 0.4)).ravel().tolist()
    assert thresholds(tied) == [pytest.approx(wanted)] * 2
    first, second = tied.network.neurons
    assert tied.raised == {
        first.name: pytest.approx(0.9 / 0.4), second.name: pytest.approx(0.4 / 0.2)
    }  # fmt: skip
    assert [n.op for n in neuron_nodes(tied.network.graph)] == ["IFPerChannel"] * 2


@pytest.mark.parametrize(
    ("more", "tied"),
    [
        ("q = Mul (a1, half)\n", False),
        ("q = Neg (a1)\n", True),  # taken off, one by one
        ("q = Add (a1, half)\n", True),  # part of the next bias
    ],
)
def test_spikes_that_are_worth_something_else_are_left(more: str, tied: bool) -> None:
    found = tie_shortcuts(chain("q", more=more))
    assert thresholds(found) == ([0.4, 0.4] if tied else [0.4, 0.3])


def test_spikes_that_were_moved_on_the_way_are_left() -> None:
    moved = "q = Transpose <perm: ints = [0,1,3,2]> (a1)\n"
    assert thresholds(tie_shortcuts(chain("q", more=moved))) == [0.4, 0.3]


def test_unit_spikes_are_tied_already() -> None:
    network, _ = unit_spikes.run(chain("a1", steps=(0.4, 0.4)))
    assert tie_shortcuts(network).raised == {}
