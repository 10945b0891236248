"""The networks in PyTorch: the official form, the form that runs, and an engine that runs it."""
