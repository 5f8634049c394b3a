from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from na_convert import lift, runtime
from na_convert.errors import NotConvertible

FOREIGN = "qonnx.custom_op.general"


def parsed(body: str, opset: int, *, domain: str = "", signature: str = "") -> onnx.ModelProto:
    extra = f', "{domain}" : 1' if domain else ""
    signature = signature or "(float[N,3,8,8] x) => (float[N,C,H,W] y)"
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}{extra}]> net {signature} {{ {body} }}'
    )


def with_weights(model: onnx.ModelProto, **weights: np.ndarray) -> onnx.ModelProto:
    for name, values in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def convolution(opset: int) -> onnx.ModelProto:
    weights = np.random.default_rng(0).standard_normal((40, 3, 3, 3)).astype(np.float32)
    clip = "y = Clip (c, low, high)" if opset >= 11 else "y = Clip <min = 0.0, max = 6.0> (c)"
    model = with_weights(parsed(f"c = Conv (x, w)\n {clip}", opset), w=weights)
    if opset >= 11:
        with_weights(model, low=np.float32(0)[...], high=np.float32(6)[...])
    return model


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
def test_old_opsets_are_lifted(opset: int) -> None:
    model = convolution(opset)
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    expected = runtime.run(model, feeds)["y"]
    lifted, notes = lift.prepare(model)
    assert lift.opset_of(lifted) == 17
    assert "equal to the original on random input" in notes[0]
    np.testing.assert_array_equal(runtime.run(lifted, feeds)["y"], expected)


def test_new_enough_models_are_left_alone() -> None:
    model = convolution(17)
    before = model.SerializeToString()
    lifted, notes = lift.prepare(model)
    assert lifted is model
    assert (lifted.SerializeToString(), notes) == (before, ())


def test_lifting_keeps_docs_metadata_and_names() -> None:
    model = convolution(9)
    model.doc_string, model.graph.doc_string = "model", "graph"
    model.graph.node[0].doc_string, model.graph.node[0].name = "node", "first"
    model.graph.input[0].doc_string = "input"
    helper.set_model_props(model, {"key": "value"})
    model.producer_name = "tests"
    lifted, _ = lift.prepare(model)
    conv = next(n for n in lifted.graph.node if n.op_type == "Conv")
    assert (conv.name, conv.doc_string, list(conv.output)) == ("first", "node", ["c"])
    assert (lifted.doc_string, lifted.graph.doc_string) == ("model", "graph")
    assert lifted.graph.input[0].doc_string == "input"
    assert lifted.metadata_props[0].value == "value"
    assert lifted.producer_name == "tests"


def test_foreign_operators_pass_the_lift_uncompared() -> None:
    body = f"c = Relu (x)\n y = {FOREIGN}.Quant <signed = 0, narrow = 0> (c, s, z, b)"
    model = with_weights(
        parsed(body, 13, domain=FOREIGN),
        s=np.float32(0.5)[...], z=np.float32(0)[...], b=np.float32(2)[...],
    )  # fmt: skip
    lifted, notes = lift.prepare(model)
    assert [n.op_type for n in lifted.graph.node] == ["Relu", "Quant"]
    assert {i.domain: i.version for i in lifted.opset_import} == {"": 17, FOREIGN: 1}
    assert "no QONNX operators" in notes[0]


def test_weights_that_are_inputs_too() -> None:
    model = convolution(13)
    value = helper.make_tensor_value_info("w", TensorProto.FLOAT, (40, 3, 3, 3))
    model.graph.input.append(value)
    lifted, _ = lift.prepare(model)
    assert [i.name for i in lifted.graph.input] == ["x"]
    assert "w" in [i.name for i in lifted.graph.initializer]


def test_a_lift_that_fails_says_what_to_do() -> None:
    model = with_weights(
        parsed('y = Upsample <mode = "nearest"> (x, s)', 9), s=np.array([1, 1, 2, 2], np.float32)
    )
    model.opset_import[0].version = 8  # where Upsample took its scales as an attribute
    with pytest.raises(NotConvertible, match="cannot be lifted") as caught:
        lift.prepare(model)
    assert caught.value.remedy is not None
    assert "opset 17" in caught.value.remedy


def test_a_lift_that_changes_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
        copy = onnx.ModelProto.FromString(model.SerializeToString())
        copy.opset_import[0].version = opset
        copy.graph.node[-1].op_type = "Neg"
        return copy

    monkeypatch.setattr(lift.version_converter, "convert_version", wrong)
    with pytest.raises(NotConvertible, match="other values"):
        lift.prepare(parsed("c = Abs (x)\n y = Relu (c)", 13))


def test_opset_newer_than_onnxruntime() -> None:
    model = convolution(17)
    model.opset_import[0].version = 999
    with pytest.raises(NotConvertible, match="newer than the installed onnxruntime"):
        lift.prepare(model)


def test_ir_version_newer_than_onnxruntime_is_lowered() -> None:
    model = convolution(17)
    model.ir_version = 99
    lifted, notes = lift.prepare(model)
    assert lifted.ir_version < 99
    assert "IR version 99 lowered" in notes[0]


def test_no_opset() -> None:
    model = convolution(17)
    del model.opset_import[:]
    with pytest.raises(lift.ModelError, match="imports no opset"):
        lift.prepare(model)


QDQ = """
    q = QuantizeLinear (x, step, zero)
    d = DequantizeLinear (q, step, zero)
    w = DequantizeLinear (wq, step, wz)
    y = Conv (d, w)
"""


def four_bit_model(kind: str) -> onnx.ModelProto:
    model = with_weights(parsed(QDQ, 21), step=np.float32(0.5)[...])
    rng = np.random.default_rng(0)
    for name, type_name, values in (
        ("zero", kind, np.array(1)),
        ("wq", "INT4", rng.integers(-8, 8, (4, 3, 3, 3))),
        ("wz", "INT4", np.array(0)),
    ):
        tensor = helper.make_tensor(
            name, getattr(TensorProto, type_name), values.shape, values.ravel().tolist()
        )
        model.graph.initializer.append(tensor)
    return model


@pytest.mark.parametrize("kind", ["UINT4", "INT4"])
def test_four_bits_are_held_in_eight(kind: str) -> None:
    model = four_bit_model(kind)
    feeds = {"x": 9 * np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    expected = runtime.run(model, feeds)["y"]
    lifted, notes = lift.prepare(model)
    assert all(t.data_type in (1, 2, 3) for t in lifted.graph.initializer)
    assert [n.op_type for n in lifted.graph.node][:2] == ["QuantizeLinear", "Clip"]
    assert len(notes) == 2
    onnx.checker.check_model(lifted, full_check=True)
    np.testing.assert_array_equal(runtime.run(lifted, feeds)["y"], expected)


def test_output_type_instead_of_a_zero_point() -> None:
    body = "q = QuantizeLinear <output_dtype = 21> (x, step)\n y = DequantizeLinear (q, step)"
    model = with_weights(parsed(body, 21), step=np.float32(0.5)[...])
    lifted, _ = lift.prepare(model)
    x = np.array([[[[-1.0, 3.0, 7.5, 100.0]]]], np.float32)
    found = runtime.run(lifted, {"x": np.broadcast_to(x, (1, 3, 8, 4)).repeat(2, 3)[..., :8]})["y"]
    assert sorted(set(found.ravel().tolist())) == [0.0, 3.0, 7.5]


@pytest.mark.parametrize(
    ("found", "difference"),
    [
        ([1.0, -2.0], 0.0),
        ([1.0, -1.5], 0.25),
        ([1.0, np.nan], np.inf),
        ([1.0], np.inf),
        ([1.0, np.inf], np.inf),
    ],
)
def test_the_difference_to_the_original(found: list[float], difference: float) -> None:
    """Against [1, -2], relative to 2; what is no number is as far off as can be."""
    assert lift._difference(np.array(found), np.array([1.0, -2.0])) == difference


@pytest.mark.parametrize("same", [np.nan, np.inf, -np.inf])
def test_what_was_no_number_before_may_stay_so(same: float) -> None:
    expected = np.array([same, 4.0])
    assert lift._difference(np.array([same, 3.0]), expected) == 0.25
    assert lift._difference(np.array([4.0, 4.0]), expected) == np.inf


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("Relu", "the model gives other values"),
        ("Nonsense", "the model no longer runs"),
    ],
)
def test_a_lift_that_changes_the_model_is_refused(
    spoil: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnx's converter is not ours: what it gives is run beside what it was given."""
    convert_version = onnx.version_converter.convert_version

    def converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
        made = convert_version(model, opset)
        made.graph.node[0].op_type = spoil
        return made

    monkeypatch.setattr(onnx.version_converter, "convert_version", converted)
    with pytest.raises(NotConvertible, match=f"lifted from opset 13 to 17, {message}"):
        lift.prepare(parsed("y = Neg (x)", 13, signature="(float[N,3] x) => (float[N,3] y)"))


def float8_model(node: str) -> onnx.ModelProto:
    model = with_weights(parsed(node, 21), step=np.float32(0.5)[...])
    values = np.random.default_rng(0).standard_normal((4, 3, 3, 3))
    tensor = helper.make_tensor("w8", TensorProto.FLOAT8E4M3FN, values.shape, values.ravel())
    model.graph.initializer.append(tensor)
    zero = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, (), [0.0])
    model.graph.initializer.append(zero)
    return model


def test_float8_weights_are_dequantised() -> None:
    model = float8_model("w = DequantizeLinear (w8, step, zero)\n y = Conv (x, w)")
    feeds = {"x": np.ones((1, 3, 8, 8), np.float32)}
    expected = runtime.run(model, feeds)["y"]
    lifted, _ = lift.prepare(model)
    assert [n.op_type for n in lifted.graph.node] == ["Conv"]
    assert all(t.data_type == TensorProto.FLOAT for t in lifted.graph.initializer)
    np.testing.assert_allclose(runtime.run(lifted, feeds)["y"], expected, rtol=1e-6)


def test_float8_activations_are_refused() -> None:
    model = float8_model(
        "q = QuantizeLinear (x, step, zero)\n d = DequantizeLinear (q, step, zero)\n y = Relu (d)"
    )
    with pytest.raises(NotConvertible, match="not evenly spaced"):
        lift.prepare(model)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("c = Cast <to: int = 1> (w8)\n y = Conv (x, c)", r"\(Cast\) works on float8"),
        (
            "k = Neg (step)\n w = DequantizeLinear (w8, k, zero)\n y = Conv (x, w)",
            "dequantises float8 in blocks, or by a computed scale",
        ),
        (
            "w = DequantizeLinear <axis: int = 3, block_size: int = 3> (w8, scales)\n"
            " y = Conv (x, w)",
            "dequantises float8 in blocks, or by a computed scale",
        ),
    ],
)
def test_other_uses_of_float8_are_refused(node: str, message: str) -> None:
    model = with_weights(float8_model(node), scales=np.ones((4, 3, 3, 1), np.float32))
    with pytest.raises(NotConvertible, match=message):
        lift.prepare(model)


@pytest.mark.parametrize("axis", [0, -4])
def test_float8_weights_of_a_scale_per_channel(axis: int) -> None:
    model = float8_model(
        f"w = DequantizeLinear <axis: int = {axis}> (w8, scales, zeros)\n y = Conv (x, w)"
    )
    with_weights(model, scales=np.array([0.5, 1, 2, 0.25], np.float32))
    zeros = helper.make_tensor("zeros", TensorProto.FLOAT8E4M3FN, (4,), [0.0] * 4)
    model.graph.initializer.append(zeros)
    feeds = {"x": np.ones((1, 3, 8, 8), np.float32)}
    expected = runtime.run(model, feeds)["y"]
    lifted, _ = lift.prepare(model)
    np.testing.assert_allclose(runtime.run(lifted, feeds)["y"], expected, rtol=1e-6)


def test_what_the_lift_splits_in_two_gets_no_name_twice() -> None:
    """Softmax flattened what lies behind its axis up to opset 12: onnx writes that out."""
    model = parsed(
        "y = Softmax <axis = 1> (x)", 9, signature="(float[N,3,8,8] x) => (float[N,3,8,8] y)"
    )
    model.graph.node[0].name = "probability"
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    expected = runtime.run(model, feeds)["y"]
    lifted, _ = lift.prepare(model)
    assert len(lifted.graph.node) > 1
    assert [n.name for n in lifted.graph.node].count("probability") == 1
    np.testing.assert_array_equal(runtime.run(lifted, feeds)["y"], expected)
