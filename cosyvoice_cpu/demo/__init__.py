"""The embedded demo: a small checkpoint, prompt clips, and the bundle that is made of them."""
