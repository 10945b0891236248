"""Sampling, the flow solver and the pipeline from text to audio. Never imports torch."""
