"""Engines behind one component interface, the size ladder and threads. Never imports torch."""
