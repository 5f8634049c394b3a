"""SNN files whose descriptions were changed: one clear line from `simulate` and `check`."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import na_convert
from na_convert.data import Samples
from na_convert.early_exit import run_until_decided
from na_convert.errors import ModelError, UsageError
from na_convert.simulator import Simulator

from . import build
from .file_forms import FORMS

DATA = {"x": build.images(4)}
NEURONS = "na_convert.neurons"


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("networks") / "ann.onnx"
    path.write_bytes(build.low_bit_ann().SerializeToString())
    return path


@pytest.fixture(scope="module")
def files(ann: Path) -> dict[str, onnx.ModelProto]:
    """The network in every form."""
    found = {}
    for name, options in FORMS.items():
        path = ann.parent / f"{name}.onnx"
        na_convert.convert(ann, output=path, timesteps=2, check=False, **options)
        found[name] = onnx.load(path)
    return found


def changed(model: onnx.ModelProto, key: str, value: str | None) -> onnx.ModelProto:
    """``model`` with a metadata entry set, or gone."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    properties = {p.key: p.value for p in model.metadata_props if value is not None or p.key != key}
    if value is not None:
        properties[key] = value
    onnx.helper.set_model_props(copied, properties)
    return copied


def metadata(model: onnx.ModelProto, key: str) -> Any:
    return json.loads(next(p.value for p in model.metadata_props if p.key == key))


def run(model: onnx.ModelProto) -> None:
    """`simulate` on the model."""
    Simulator(model, record=["*"], threads=1).run(DATA)


def step(model: onnx.ModelProto) -> None:
    """`Simulator.step` on the model, by the step form that it makes of it."""
    Simulator(model, record=["*"], threads=1).step(DATA)


def decide(model: onnx.ModelProto) -> None:
    """`simulate --early-exit` on the model."""
    run_until_decided(Simulator(model, threads=1), Samples(DATA, None, ""), 1.0, 1, threads=1)


USES = (run, step, decide)


def survives(
    model: onnx.ModelProto, uses: Sequence[Callable[[onnx.ModelProto], None]] = USES
) -> None:
    """All of them run the model, or refuse it as the user's: any other error is a defect."""
    for use in uses:
        with suppress(UsageError):
            use(model)


IN_TURN = [False, pytest.param(True, marks=pytest.mark.slow)]


WRONG = ["", "[]", "{}", "null", "5", "[1]", "[{}]", '[{"a": 1}]', "[" * 50_000, "-3", "9" * 5000]


@pytest.mark.parametrize("every", IN_TURN)
@pytest.mark.parametrize("form", FORMS)
def test_metadata_of_any_shape(files: dict[str, onnx.ModelProto], form: str, every: bool) -> None:
    """Each value in one use in turn; or, for minutes, every value in every use."""
    model = files[form]
    for row, entry in enumerate(model.metadata_props):
        for column, value in enumerate((*WRONG, None)):
            uses = USES if every else (USES[(row + column) % len(USES)],)
            survives(changed(model, entry.key, value), uses)
    if form != "unrolled":  # which keeps them in the network in its metadata
        with pytest.raises(ModelError):
            run(changed(model, NEURONS, "[" * 50_000))
    with pytest.raises(ModelError):
        run(changed(model, "na_convert.form", "no such form"))


@pytest.mark.parametrize("value", ["0", "-3", "999999999", "two"])
def test_numbers_of_time_steps(files: dict[str, onnx.ModelProto], value: str) -> None:
    with pytest.raises(ModelError, match="description is damaged"):
        run(changed(files["folded"], "na_convert.timesteps", value))
    found = metadata(files["int8"], "na_convert.integer")
    for number in (value, int(value) if value.removeprefix("-").isdigit() else None):
        stored = json.dumps({**found, "timesteps": number})
        with pytest.raises(ModelError, match="damaged"):
            run(changed(files["int8"], "na_convert.integer", stored))


@pytest.mark.parametrize("value", [None, "x", [1, "a"], -1, 10**12, float("nan"), {}, True])
def test_each_field_of_a_neuron_layer(files: dict[str, onnx.ModelProto], value: object) -> None:
    model = files["folded"]
    layers = metadata(model, NEURONS)
    for key in layers[0]:
        entries = copy.deepcopy(layers)
        entries[0][key] = value
        survives(changed(model, NEURONS, json.dumps(entries)))


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("shape", [10**9, 8, 8], "the shape of 'Mul_4'"),
        ("shape", [-4, 8, 8], "the shape of 'Mul_4'"),
        ("name", "nobody", "no neuron node 'nobody'"),
        ("name", 5, "a name that is no text"),
        ("threshold", "high", "threshold of 'Mul_4' is no number"),
        ("current_scale", None, "current_scale of 'Mul_4' is no number"),
        ("levels", 0, "0 levels"),
        ("thr-shold", 1.0, "entries of a neuron layer are unknown, or missing: 'thr-shold'"),
    ],
)
def test_what_is_wrong_is_named(
    files: dict[str, onnx.ModelProto], key: str, value: object, match: str
) -> None:
    layers = metadata(files["folded"], NEURONS)
    layers[0][key] = value
    with pytest.raises(ModelError, match=match):
        run(changed(files["folded"], NEURONS, json.dumps(layers)))


def places(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in a JSON object, as keys and indices."""
    yield path
    items = found.items() if isinstance(found, dict) else ()
    if isinstance(found, list):
        items = enumerate(found)
    for key, inner in items:
        yield from places(inner, (*path, key))


@pytest.mark.parametrize(
    ("form", "key"),
    [
        ("folded", "na_convert.exact"),
        ("int8", "na_convert.integer"),
        ("int8-loop", "na_convert.integer"),
    ],
)
def test_each_value_of_a_description(
    files: dict[str, onnx.ModelProto], form: str, key: str
) -> None:
    whole = metadata(files[form], key)
    found = [path for path in places(whole) if path]
    rng = np.random.default_rng(0)
    for path in (found[k] for k in rng.permutation(len(found))[:25]):
        for value in (None, "x", -1, 10**12, []):
            entries = copy.deepcopy(whole)
            inner = entries
            for step in path[:-1]:
                inner = inner[step]
            inner[path[-1]] = value
            survives(changed(files[form], key, json.dumps(entries)))


@pytest.mark.parametrize("use", [run, step, decide])
@pytest.mark.parametrize("form", ["int8", "int8-loop"])
@pytest.mark.parametrize(
    ("key", "value"), [("zero_point", 100_000), ("zero_point", -1), ("resolution", 0)]
)
def test_numbers_that_no_uint8_holds(
    files: dict[str, onnx.ModelProto],
    form: str,
    key: str,
    value: int,
    use: Callable[[onnx.ModelProto], None],
) -> None:
    found = metadata(files[form], "na_convert.integer")
    next(op for op in found["operations"] if op.get("products"))[key] = value
    with pytest.raises(ModelError, match=r"na_convert\.integer is not as it was written"):
        use(changed(files[form], "na_convert.integer", json.dumps(found)))


def test_grids_of_any_shape(ann: Path, files: dict[str, onnx.ModelProto]) -> None:
    stored = metadata(files["folded"], "na_convert.exact")
    for key, value in (("grids", {"w2": 10**9}), ("rounds", -1), ("layers", {}), ("bounds", [])):
        path = ann.parent / "damaged.onnx"
        model = changed(files["folded"], "na_convert.exact", json.dumps({**stored, key: value}))
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match=r"na_convert\.exact is not as it was written"):
            na_convert.check(ann, path, data=DATA, checks=["replay"])


# --- the graph ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_thresholds_that_are_none(files: dict[str, onnx.ModelProto], value: float) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(files["folded"])
    neuron = next(n for n in model.graph.node if n.op_type == "IF")
    next(a for a in neuron.attribute if a.name == "threshold").f = value
    with pytest.raises(ModelError, match="the threshold of 'Mul_4'"):
        run(model)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("every", IN_TURN)
@pytest.mark.parametrize("form", FORMS)
def test_nodes_replaced_and_weights_changed(
    files: dict[str, onnx.ModelProto], form: str, every: bool
) -> None:
    for index in range(min(6, len(files[form].graph.node))):
        model = onnx.ModelProto()
        model.CopyFrom(files[form])
        node = model.graph.node[index]
        node.CopyFrom(onnx.helper.make_node("Relu", node.input[:1], node.output[:1]))
        survives(model)
    for index, weight in enumerate(files[form].graph.initializer):
        values = onnx.numpy_helper.to_array(weight)
        others = (np.zeros_like(values), values.ravel()[:1], values.astype(float) * -3)
        for turn, other in enumerate(others):
            if not every and turn != index % len(others):
                continue
            model = onnx.ModelProto()
            model.CopyFrom(files[form])
            replaced = onnx.numpy_helper.from_array(np.asarray(other, values.dtype), weight.name)
            model.graph.initializer[index].CopyFrom(replaced)
            survives(model)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("use", [run, step, decide])
@pytest.mark.parametrize("form", ["int8", "int8-loop"])
@pytest.mark.parametrize(
    ("weight", "value", "match"),
    [
        ("Mul_9_scale", 0.0, "'Mul_9_scale' holds a number that is not above 0"),
        ("Mul_9_scale", -0.25, "'Mul_9_scale' holds a number that is not above 0"),
        ("Mul_9_scale", float("nan"), "'Mul_9_scale' holds a number that is not finite"),
        ("Mul_9_scale", 1e-40, "'Mul_9_scale' holds a threshold that is no odd number up to 8191"),
        ("Mul_9_scale", 0.5, "'Mul_9_scale' holds a threshold that is no odd number up to 8191"),
        ("Mul_4_units_high", float("inf"), "'Mul_4_units_high' holds a number that is not finite"),
        ("Mul_4_units_high", 0.5, "'Mul_4_units_high' holds a number that is no int32"),
        ("Mul_4_units_gain", float("nan"), "'Mul_4_units_gain' holds a number that is not finite"),
    ],
)
def test_numbers_of_an_int8_layer_that_are_none(
    files: dict[str, onnx.ModelProto],
    form: str,
    weight: str,
    value: float,
    match: str,
    use: Callable[[onnx.ModelProto], None],
) -> None:
    with pytest.raises(ModelError, match=match) as found:
        use(with_weights(files[form], weight, value))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m: with_weights(m, "Mul_9_scale", 0.0), "'Mul_9_scale' holds a number"),
        (lambda m: changed(m, "na_convert.integer", "{}"), "is not as it was written"),
        (lambda m: changed(m, NEURONS, "[1]"), "description is damaged"),
        (lambda m: changed(m, "na_convert.timesteps", "two"), "description is damaged"),
        (lambda m: changed(m, "na_convert.form", None), "not an SNN written by na-convert"),
    ],
)
def test_damaged_files_are_not_exported(
    files: dict[str, onnx.ModelProto],
    tmp_path: Path,
    change: Callable[[onnx.ModelProto], onnx.ModelProto],
    match: str,
) -> None:
    snn = tmp_path / "net.snn.onnx"
    onnx.save(change(files["int8"]), snn)
    with pytest.raises(ModelError, match=match):
        na_convert.export_integers(snn, tmp_path / "net.npz")
    assert not (tmp_path / "net.npz").exists()


def with_weights(model: onnx.ModelProto, name: str, value: float) -> onnx.ModelProto:
    """``model`` with an initialiser, of the graph or of a Loop in it, that is ``value``."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    bodies = [a.g for n in changed.graph.node for a in n.attribute if a.name == "body"]
    stored = next(
        i for graph in (changed.graph, *bodies) for i in graph.initializer if i.name == name
    )
    values = np.full_like(onnx.numpy_helper.to_array(stored), value)
    stored.CopyFrom(onnx.numpy_helper.from_array(values, name))
    return changed


def add_loop(nodes: Any, source: str, target: str) -> None:
    body = onnx.parser.parse_graph(
        "b (int64 i, bool on, float s) => (bool again, float s2) "
        "{ again = Identity (on)\n s2 = Add (s, s) }"
    )
    nodes.add().CopyFrom(onnx.helper.make_node("Loop", ["", "", source], [target], body=body))


def loop_in_the_graph(model: onnx.ModelProto) -> None:
    add_loop(model.graph.node, "y", "endless")


def loop_in_a_neuron(model: onnx.ModelProto) -> None:
    add_loop(model.functions[0].node, model.functions[0].input[0], "endless")


@pytest.mark.parametrize("harm", [loop_in_the_graph, loop_in_a_neuron])
@pytest.mark.parametrize("form", ["folded", "int8-loop"])
def test_loops_are_not_run(
    files: dict[str, onnx.ModelProto], form: str, harm: Callable[[onnx.ModelProto], None]
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(files[form])
    harm(model)
    with pytest.raises(ModelError, match="it holds control flow"):
        run(model)
