"""The version, read by the package, by what it writes, and by the build."""

__version__ = "0.2.0"
