"""Measures of speech quality: any two bundles, checkpoints or engines, on fixed sentences."""
