"""One candidate after the other: planned, fitted to calibration items, measured, and chosen."""
