"""Recipes as TOML files, and how they are read."""
