"""Speed and memory: bench, profile, tune, and what a machine can reach."""
