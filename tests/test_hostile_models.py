"""Model files made to do harm: one clear line each, at once, and nothing is written."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.parser
import pytest

import na_convert
from na_convert import cli, model_guard, model_io, model_writing, reading
from na_convert.errors import CheckFailed, ModelError, NaConvertError, NotConvertible
from na_convert.protos import stays_in_file

from . import build

Model = onnx.ModelProto


@pytest.fixture
def ann() -> Model:
    return build.low_bit_ann()


def weight(model: Model, name: str = "w1") -> onnx.TensorProto:
    return next(i for i in model.graph.initializer if i.name == name)


def give(model: Model, name: str, values: np.ndarray | float) -> None:
    array = np.asarray(values, np.float32)
    weight(model, name).CopyFrom(onnx.numpy_helper.from_array(array, name))


def input_shape(model: Model, dims: list[int | str]) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, dims)
    model.graph.input[0].CopyFrom(value)


def refused_by(
    folder: Path, model: Model | bytes, kind: type[NaConvertError], match: str
) -> NaConvertError:
    """What `convert` says; nothing lies beside the model afterwards."""
    path = folder / "m.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    before = sorted(folder.iterdir())
    with pytest.raises(kind, match=match) as caught:
        na_convert.convert(path)
    assert sorted(folder.iterdir()) == before
    assert "\n" not in str(caught.value)
    return caught.value


# --- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 10, 100, 1000, -1])
def test_truncated_files(tmp_path: Path, ann: Model, length: int) -> None:
    refused_by(tmp_path, ann.SerializeToString()[:length], ModelError, "not a readable ONNX model")


def test_random_bytes(tmp_path: Path) -> None:
    for seed in range(20):
        noise = np.random.default_rng(seed).bytes(50 * (seed + 1))
        refused_by(tmp_path, noise, ModelError, "not a readable ONNX model")


def test_a_file_too_long_to_be_a_protobuf_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no room
    with pytest.raises(ModelError, match="over protobuf's limit"):
        model_io.load(path)


# --- tensors --------------------------------------------------------------------------------------


def absurd_dims(model: Model) -> None:
    del weight(model).dims[:]
    weight(model).dims.extend([2**40, 2**20, 3, 3])


def no_data(model: Model) -> None:
    weight(model).ClearField("raw_data")


def negative_dims(model: Model) -> None:
    del weight(model).dims[:]
    weight(model).dims.extend([-4, -3, 3, 3])


def too_many_bytes(model: Model) -> None:
    weight(model).raw_data += b"\0" * 400


def too_few_bytes(model: Model) -> None:
    weight(model).raw_data = weight(model).raw_data[:-4]


def too_many_values(model: Model) -> None:
    values = onnx.numpy_helper.to_array(weight(model)).ravel()
    weight(model).ClearField("raw_data")
    weight(model).float_data.extend([*values, 1.0])


def unknown_type(model: Model) -> None:
    weight(model).data_type = 99


def missing(model: Model) -> None:
    model.graph.initializer.remove(weight(model))


def twice(model: Model) -> None:
    model.graph.initializer.append(weight(model))


def sparse_and_huge(model: Model) -> None:
    sparse = onnx.SparseTensorProto(dims=[2**20, 2**20, 3, 3])
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(np.ones(2, np.float32), "w1"))
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(np.array([0, 1])))
    model.graph.sparse_initializer.append(sparse)
    missing(model)


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (absurd_dims, "overflow"),
        (no_data, "should contain one and only one value"),
        (negative_dims, "Negative dimension"),
        (too_many_bytes, "'w1' takes 432 bytes and has 832"),
        (too_few_bytes, "too small"),
        (too_many_values, "'w1' takes 108 values and has 109"),
        (unknown_type, "'w1' has the unknown type 99"),
        (missing, "input 'w1'"),
        (twice, "not unique"),
        (sparse_and_huge, "'w1' would have 9.9e"),
    ],
)
def test_tensors(tmp_path: Path, ann: Model, harm: Callable[[Model], None], match: str) -> None:
    harm(ann)
    refused_by(tmp_path, ann, ModelError, match)


@pytest.mark.parametrize(
    ("dims", "match"),
    [
        (["N", 3, -8, 8], "has a size below 0"),
        ([-2, 3, 8, 8], "has a size below 0"),
        (["N", 3, 0, 8], "onnxruntime does not run|Invalid"),
        (["N", 3, 2**20, 2**20], "'x' would have 3.3e"),
        ([2**60, 2**60, 8, 8], "'x' would have"),
        (["N", 4, 8, 8], "channels"),
    ],
)
def test_shapes_of_inputs(tmp_path: Path, ann: Model, dims: list[int | str], match: str) -> None:
    input_shape(ann, dims)
    refused_by(tmp_path, ann, ModelError, match)


def test_types_of_inputs(tmp_path: Path, ann: Model) -> None:
    ann.graph.input[0].type.tensor_type.elem_type = 99
    refused_by(tmp_path, ann, ModelError, "'x' has the unknown type 99")
    ann.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    refused_by(tmp_path, ann, NaConvertError, "random values mean nothing")
    ann.graph.input[0].ClearField("type")
    refused_by(tmp_path, ann, ModelError, "'type'")


def test_weights_that_are_no_numbers(tmp_path: Path, ann: Model) -> None:
    values = onnx.numpy_helper.to_array(weight(ann)).copy()
    for bad, match in ((np.nan, "'w1' holds NaN"), (np.inf, "'w1' is infinite")):
        values[0, 0, 0, 0] = bad
        give(ann, "w1", values)
        refused_by(tmp_path, ann, ModelError, match)


def test_weights_that_overflow(tmp_path: Path, ann: Model) -> None:
    give(ann, "w1", np.full((4, 3, 3, 3), 3e38))
    refused_by(tmp_path, ann, CheckFailed, "'c' is not finite on the samples")


@pytest.mark.parametrize(
    ("step", "match"),
    [
        (0.0, "cannot be part"),
        (-0.0, "cannot be part"),
        (np.inf, "cannot be part"),
        (np.nan, "'step' holds NaN"),
        (1e-40, "cannot be part"),
        (1e30, "cannot be part"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_steps_that_make_no_threshold(tmp_path: Path, ann: Model, step: float, match: str) -> None:
    give(ann, "step", step)
    refused_by(tmp_path, ann, NaConvertError, match)


def test_a_subnormal_threshold_says_so(tmp_path: Path, ann: Model) -> None:
    give(ann, "step", 1e-40)
    error = refused_by(tmp_path, ann, NotConvertible, "cannot be part")
    assert isinstance(error, NotConvertible)
    assert {r.reason for r in error.refused} == {
        "its threshold is below the smallest normal number of its float type"
    }


@pytest.mark.parametrize("levels", [0.0, -3.0, 1e6, 1e9, 1e12, np.inf])
def test_numbers_of_levels_that_cannot_be(tmp_path: Path, ann: Model, levels: float) -> None:
    """A billion levels once passed for a clip."""
    give(ann, "top", levels)
    refused_by(tmp_path, ann, NotConvertible, "cannot be part")


# --- graphs ---------------------------------------------------------------------------------------


def cyclic(model: Model) -> None:
    model.graph.node[0].input[0] = model.graph.node[3].output[0]


def reads_itself(model: Model) -> None:
    model.graph.node[0].input[0] = model.graph.node[0].output[0]


def one_name_twice(model: Model) -> None:
    model.graph.node[1].output[0] = model.graph.node[0].output[0]


def nodes_of_one_name(model: Model) -> None:
    for node in model.graph.node:
        node.name = "same"


def escape_sequence(model: Model) -> None:
    model.graph.node[0].name = "\x1b[31mred"


def endless_name(model: Model) -> None:
    model.graph.node[0].name = "q" * 100_000


def unknown_operator(model: Model) -> None:
    model.graph.node[0].op_type = "NoSuchOp"


def domain_not_imported(model: Model) -> None:
    model.graph.node[0].domain = "evil.domain"


def two_opsets(model: Model) -> None:
    model.opset_import.append(onnx.helper.make_opsetid("", 11))


def no_opset(model: Model) -> None:
    del model.opset_import[:]


def future_ir(model: Model) -> None:
    model.ir_version = 99


def output_of_nothing(model: Model) -> None:
    model.graph.output[0].name = "nothing"


def endless_recursion(model: Model) -> None:
    call_functions(model, "loc.F0", depth=1)


def call_functions(model: Model, innermost: str, depth: int) -> None:
    """Functions that call the one before twice each."""
    for k in range(depth):
        inner = innermost if k == 0 else f"loc.F{k - 1}"
        text = f"F{k} (a) => (c) {{ b = {inner} (a)\n c = {inner} (b) }}"
        imports = '<domain: "loc", opset_import: ["" : 17, "loc" : 1]>'
        model.functions.append(onnx.parser.parse_function(f"{imports} {text}"))
    model.opset_import.append(onnx.helper.make_opsetid("loc", 1))
    call = onnx.helper.make_node(f"F{depth - 1}", ["f"], ["y"], domain="loc")
    model.graph.node[-1].CopyFrom(call)


def functions_that_multiply(model: Model) -> None:
    call_functions(model, "Relu", depth=40)


def no_zero_point(model: Model) -> None:
    """onnxruntime does not refuse this, it aborts."""
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    for name, value in (("one", np.float32(1)), ("none", np.uint8(0))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    made = [
        onnx.helper.make_node("QuantizeLinear", [model.graph.output[0].name, "one", "none"], ["q"]),
        onnx.helper.make_node(
            "QLinearSigmoid", ["q", "one", "none", "one"], ["p"], domain="com.microsoft"
        ),
        onnx.helper.make_node("DequantizeLinear", ["p", "one", "none"], ["end"]),
    ]
    model.graph.node.extend(made)
    model.graph.output[0].name = "end"


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (no_zero_point, r"'p' \(QLinearSigmoid\) has no zero point of its result"),
        (cyclic, "topologically sorted"),
        (reads_itself, "topologically sorted"),
        (one_name_twice, "single static assignment"),
        (nodes_of_one_name, "two nodes with same node name"),
        (escape_sequence, "control characters"),
        (endless_name, "more than 4096"),
        (unknown_operator, "NoSuchOp"),
        (domain_not_imported, r"evil\.domain"),
        (two_opsets, r"two versions of ONNX's operators \(17 and 11\)"),
        (no_opset, "opset_import"),
        (future_ir, "ir_version 99"),
        (output_of_nothing, "'nothing'"),
        (endless_recursion, "not be recursive"),
        (functions_that_multiply, "nodes .*, more than 30000"),
    ],
)
def test_graphs(tmp_path: Path, ann: Model, harm: Callable[[Model], None], match: str) -> None:
    harm(ann)
    refused_by(tmp_path, ann, ModelError, match)


def test_names_that_are_no_text(tmp_path: Path, ann: Model) -> None:
    call_functions(ann, "Relu", depth=1)
    ann.graph.name, ann.graph.doc_string, ann.producer_name = "locg", "locd", "locp"
    ann.metadata_props.add(key="lock", value="locv")
    ann.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "locn"
    content = ann.SerializeToString()
    for text in (b"locg", b"locd", b"locp", b"lock", b"locv", b"locn"):
        harmed = content.replace(text, b"\xff\xff\xff\xff")
        refused_by(tmp_path, harmed, ModelError, "no text|not a readable")
    refused_by(tmp_path, content.replace(b"loc", b"\xff\xffc"), ModelError, "no text|not a read")


@pytest.mark.parametrize("opset", [-5, 0, 1, 99, 2**62])
def test_opsets(tmp_path: Path, ann: Model, opset: int) -> None:
    ann.opset_import[0].version = opset
    refused_by(tmp_path, ann, NaConvertError, "opset|domain_version|out of supported range")


def test_custom_operators_are_listed(tmp_path: Path, ann: Model) -> None:
    ann.graph.node[0].domain = "evil.domain"
    ann.opset_import.append(onnx.helper.make_opsetid("evil.domain", 1))
    error = refused_by(tmp_path, ann, NotConvertible, r"1 node\(s\) cannot be part")
    assert isinstance(error, NotConvertible)
    assert "a custom operator" in error.refused[0].reason


# --- time and memory ------------------------------------------------------------------------------

TAIL = {
    "ConstantOfShape": ("z = ConstantOfShape (size)", {"size": np.array([2**36])}),
    "Expand": ("z = Expand (one, size)", {"one": 1.0, "size": np.array([2**18, 2**18])}),
    "Tile": (
        "z = Tile (ones, size)",
        {"ones": np.ones(1, np.float32), "size": np.array([2**36])},
    ),
    "Range": ("z = Range (none, end, one)", {"none": 0.0, "end": 1e12, "one": 1.0}),
    "Pad": ("z = Pad (o, size)", {"size": np.array([0, 0, 0, 2**40])}),
    "OneHot": (
        "z = OneHot (ones, depth, values)",
        {
            "ones": np.ones(1000, np.int64),
            "depth": np.array(2**33),
            "values": np.array([0, 1], np.float32),
        },
    ),
    "outer product": (
        "z = MatMul (a1, a2)",
        {"a1": np.ones((30000, 1), np.float32), "a2": np.ones((1, 30000), np.float32)},
    ),
    "doubled 40 times": (
        "z0 = Identity (ones)\n"
        + "".join(f"z{k + 1} = Concat <axis: int = 0> (z{k}, z{k})\n" for k in range(40))
        + "z = Identity (z40)",
        {"ones": np.ones(1, np.float32)},
    ),
}


@pytest.mark.parametrize("name", TAIL)
def test_tensors_that_would_fill_the_memory(tmp_path: Path, name: str) -> None:
    text, weights = TAIL[name]
    refused_by(tmp_path, with_tail(text, weights), ModelError, "elements")


@pytest.mark.parametrize("name", TAIL)
def test_before_data_are_handed_out_and_a_node_explained(tmp_path: Path, name: str) -> None:
    """Whatever a command does with a model begins with its data; --explain takes none."""
    path = tmp_path / "m.onnx"
    path.write_bytes(with_tail(*TAIL[name]).SerializeToString())
    with pytest.raises(ModelError, match=r"m\.onnx: .* elements"):
        reading.samples_for(model_io.load(path), {"x": build.images(2)}, None)
    with pytest.raises(ModelError, match=r"m\.onnx: .* elements"):
        na_convert.explain(path, "n0")


def test_a_size_that_only_folding_tells(tmp_path: Path) -> None:
    text = (
        "n = Constant <value_int: int = 99999999999> ()\nsize = Reshape (n, minus)\n"
        "z = ConstantOfShape (size)"
    )
    model = with_tail(text, {"minus": np.array([1])})
    refused_by(tmp_path, model, ModelError, "would make a constant of 1e")


def with_tail(text: str, weights: dict) -> Model:
    """The ANN with something added to its output ``o``."""
    ann = build.low_bit_ann()
    ann.graph.node[-1].output[0] = "o"
    extra = build.model(f"{text}\nw = ReduceSum (z)\ny = Add (o, w)", weights)
    ann.graph.node.extend(extra.graph.node)
    for k, node in enumerate(ann.graph.node):
        node.name = f"n{k}"
    ann.graph.initializer.extend(extra.graph.initializer)
    return ann


def test_loops_are_refused_before_they_run(tmp_path: Path, ann: Model) -> None:
    body = onnx.parser.parse_graph(
        "b (int64 i, bool go, float[N,5] s) => (bool on, float[N,5] s2) "
        "{ on = Identity (go)\n s2 = Add (s, s) }"
    )
    ann.graph.node[-1].output[0] = "o"
    loop = onnx.helper.make_node("Loop", ["trips", "go", "o"], ["y"], name="loop", body=body)
    ann.graph.node.append(loop)
    for name, value in (("trips", np.array(2**60)), ("go", np.array(True))):
        ann.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    error = refused_by(tmp_path, ann, NotConvertible, r"1 node\(s\) cannot be part")
    assert isinstance(error, NotConvertible)
    assert error.refused[0].node == "loop"


def nested(depth: int) -> onnx.NodeProto:
    """An If in an If in an If, ..."""
    inner = onnx.helper.make_node("Identity", ["o"], ["o0"])
    other = onnx.parser.parse_graph("e () => (float[N,5] e) { e = Neg (o) }")
    for k in range(depth):
        value = onnx.helper.make_tensor_value_info(f"o{k}", 1, ["N", 5])
        graph = onnx.helper.make_graph([inner], f"g{k}", [], [value])
        inner = onnx.helper.make_node(
            "If", ["go"], [f"o{k + 1}"], then_branch=graph, else_branch=other
        )
    return inner


def test_branches_within_branches(tmp_path: Path, ann: Model) -> None:
    """Nested ones with a constant condition are inlined; deeper than protobuf goes is no model."""
    ann.graph.node[-1].output[0] = "o"
    tree = nested(20)
    tree.output[0] = "y"
    ann.graph.node.append(tree)
    path = tmp_path / "m.onnx"
    ann.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "go"))
    onnx.save(ann, path)
    found = na_convert.inspect(path)
    assert len(found.neurons) == 2
    raw = b""
    for _ in range(10_000):
        raw = field(5, b"\x0a\x01g" + field(6, field(1, raw)))
    head = Model(ir_version=9)
    deep = head.SerializeToString() + field(7, field(1, raw))
    refused_by(tmp_path, deep, ModelError, "not a readable ONNX model")


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return model_writing._field(number, len(content)) + content


def test_a_branch_that_depends_on_data(tmp_path: Path, ann: Model) -> None:
    ann.graph.node[-1].output[0] = "o"
    tree = nested(1)
    tree.name, tree.output[0] = "branch", "y"
    for text in ("s = ReduceSum (o)", "go = Greater (s, zero)"):
        ann.graph.node.append(onnx.parser.parse_node(text))
    ann.graph.node.append(tree)
    error = refused_by(tmp_path, ann, NotConvertible, r"1 node\(s\) cannot be part")
    assert isinstance(error, NotConvertible)
    assert [r.reason for r in error.refused] == ["a branch that depends on data"]


def test_graphs_of_100_000_nodes(tmp_path: Path, ann: Model) -> None:
    last = ann.graph.node.pop()
    before = "f"
    for k in range(100_000):
        node = onnx.NodeProto(op_type="Neg", name=f"n{k}", input=[before], output=[f"t{k}"])
        ann.graph.node.append(node)
        before = f"t{k}"
    last.input[0] = before
    ann.graph.node.append(last)
    refused_by(tmp_path, ann, ModelError, "nodes .*, more than 30000")


def test_sorting_is_linear() -> None:
    """Thirty thousand nodes in the reverse of their order: one after the other would be hours."""
    graph = onnx.GraphProto()
    count = model_guard.MOST_NODES
    graph.node.extend(
        onnx.NodeProto(op_type="Neg", input=[f"t{k}"], output=[f"t{k + 1}"])
        for k in reversed(range(count))
    )
    model_io.sort_nodes(graph)
    assert [n.input[0] for n in graph.node] == [f"t{k}" for k in range(count)]


# --- external data --------------------------------------------------------------------------------


def external(
    model: Model, location: str, offset: str | None = None, length: str | None = None
) -> bytes:
    """Let the first weight lie in a file; returns its bytes."""
    tensor = weight(model)
    raw = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    return raw


@pytest.mark.parametrize(
    ("location", "match"),
    [
        ("../outside.data", "outside"),
        ("{folder}/outside.data", "absolute"),
        ("/dev/zero", "absolute"),
        ("link.data", "symbolic link"),
        ("linked/outside.data", "outside"),
        ("pipe", "not regular file"),
        (".", "not regular file"),
        ("", "should not be empty"),
        ("none.data", "not regular file"),
    ],
)
def test_external_data_elsewhere(tmp_path: Path, ann: Model, location: str, match: str) -> None:
    raw = external(ann, location.format(folder=tmp_path))
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside.data").write_bytes(raw)
    (inside / "link.data").symlink_to(tmp_path / "outside.data")
    (inside / "linked").symlink_to(tmp_path)
    os.mkfifo(inside / "pipe")
    refused_by(inside, ann, ModelError, match)


@pytest.mark.parametrize(
    ("offset", "length", "match"),
    [
        ("999999", "432", "has 0"),
        ("-4", "432", "has 0|offset"),
        ("abc", "432", "cannot be found|offset"),
        (str(2**70), "432", "has 0|offset|range"),
        ("0", "99999999999", "has 832"),
        ("0", "-1", "has -1|length"),
        ("0", "4", "has 4"),
        ("0", None, "has 832"),
    ],
)
def test_external_data_of_another_size(
    tmp_path: Path, ann: Model, offset: str, length: str | None, match: str
) -> None:
    raw = external(ann, "m.data", offset, length)
    (tmp_path / "m.data").write_bytes(raw + bytes(400))
    refused_by(tmp_path, ann, ModelError, match)


def test_external_data_that_is_a_hole_of_a_terabyte(tmp_path: Path, ann: Model) -> None:
    external(ann, "m.data")
    with (tmp_path / "m.data").open("wb") as file:
        file.truncate(2**40)
    refused_by(tmp_path, ann, ModelError, "has 1099511627776")
    del weight(ann).dims[:]
    weight(ann).dims.extend([2**38])
    refused_by(tmp_path, ann, ModelError, "this machine has .* of memory")


@pytest.mark.parametrize("inside", [False, True])
def test_a_file_that_says_its_weight_may_be_read_later(
    tmp_path: Path, ann: Model, inside: bool
) -> None:
    """That is said by `protos.leave_in_file` alone, of a place that has been checked."""
    tensor = weight(ann)
    raw = tensor.raw_data
    if inside:
        tensor.external_data.add(key="modified", value="0")
    else:
        external(ann, "m.data")
        (tmp_path / "m.data").write_bytes(raw)
        tensor.external_data.add(key="modified", value="0")
    path = tmp_path / "m.onnx"
    path.write_bytes(ann.SerializeToString())
    (read,) = (t for t in model_io.load(path).model.graph.initializer if t.name == tensor.name)
    assert read.raw_data == raw
    assert not stays_in_file(read)


# --- types that do not fit ------------------------------------------------------------------------


@pytest.mark.parametrize("check", [True, False])
def test_types_that_do_not_fit_are_the_models_fault(tmp_path: Path, check: bool) -> None:
    """onnx's checker does not look at them; a zero point in float once was an unexpected error."""
    body = (
        "c = Conv (x, w)\nq = QuantizeLinear (c, step, zero)\nd = DequantizeLinear (q, step, zero)"
    )
    tail = "\nf = Flatten (d)\ny = Gemm (f, v)"
    model = build.model(body + tail, {"w": (4, 3, 3, 3), "v": (144, 5), "step": 0.4, "zero": 0.0})
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"onnxruntime .*Type"):
        na_convert.convert(path, check=check)


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["convert", "inspect", "check", "simulate"])
def test_every_command_says_it_in_one_line(
    tmp_path: Path, ann: Model, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    too_many_bytes(ann)
    path, data = tmp_path / "m\x1b[31m.onnx", tmp_path / "d.npz"
    path.write_bytes(ann.SerializeToString())
    np.savez(data, x=build.images())
    arguments = [command, str(path)]
    arguments += [str(path)] * (command == "check")
    arguments += ["--data", str(data)] * (command in ("check", "simulate"))
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    shown = capsys.readouterr()
    assert (stopped.value.code, shown.out) == (2, "")
    assert re.fullmatch(r"error: .*m\\x1b\[31m\.onnx: weight 'w1' takes .*\n", shown.err)


def test_a_long_message_is_cut_in_the_middle(capsys: pytest.CaptureFixture[str]) -> None:
    from na_convert.outcome import tell

    tell(ModelError("a" * 5000, remedy="b" * 5000), verbose=False)
    shown = capsys.readouterr().err
    assert len(shown) < 1100
    assert shown.startswith("error: aaa")
    assert shown.endswith("bbb\n")
