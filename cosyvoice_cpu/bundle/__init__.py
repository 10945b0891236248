"""The bundle on disk: manifest, digests, safe paths, atomic writing."""
