"""The networks in PyTorch, float32: the reference that every engine is compared with."""
