"""ONNX graphs: their bytes, their parity, their fusion. It imports core alone."""
