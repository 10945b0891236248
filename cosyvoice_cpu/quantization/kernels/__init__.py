"""Integer matrix products of ONNX Runtime: weights, nodes, and what they compute, in NumPy."""
