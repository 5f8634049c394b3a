"""Operators on integers become float operators between QuantizeLinear and DequantizeLinear.

Cases, each with its test:

* ``QLinearConv``, ``QLinearMatMul``, ``QGemm`` (weights dequantised, bias int32 in its own scale)
* ``QLinearAdd``, ``QLinearMul``, ``QLinearGlobalAveragePool``, ``QLinearAveragePool``,
  ``QLinearConcat``, ``QLinearSigmoid``, ``QLinearLeakyRelu`` (domain com.microsoft)
* ``ConvInteger``, ``MatMulInteger``: float convolution of the values less their zero point
* operators that only move values (MaxPool, Flatten, Reshape, Transpose, ...) between
  QuantizeLinear and DequantizeLinear: moved behind DequantizeLinear, where values are floats
* DequantizeLinear(QuantizeLinear(x)) where x lies on the same grid already: dropped
* QuantizeLinear and DequantizeLinear of domain com.microsoft: ONNX's own where its opset has the
  type, else written out (Div, Round, Add, Clip, Sub, Mul)
* ``FusedConv``, ``FusedGemm``, ``FusedMatMul`` of onnxruntime: the operator, then the activation
* anything else that cannot be taken apart is left for `to_spiking` to judge
"""
