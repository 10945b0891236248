"""Dropping files from the page cache."""

from __future__ import annotations
