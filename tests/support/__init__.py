"""What tests share: example bundles, checkpoints and clips, and how results are compared."""
