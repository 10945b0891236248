"""The embedded demo voice and its recipe."""
