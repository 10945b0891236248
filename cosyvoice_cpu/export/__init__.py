"""Networks to ONNX graphs to bundle."""
