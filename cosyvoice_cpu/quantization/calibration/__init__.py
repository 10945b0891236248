"""What recipes are fitted to: text/audio pairs, recorded activations, scales of channels."""
