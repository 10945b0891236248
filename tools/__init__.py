"""Developers' programs: each is run as `python -m tools.NAME` in a clone; none is in the wheel."""
