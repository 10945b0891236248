"""The bundle on disk: manifest, digests, safe paths, atomic writing."""

from cosyvoice_cpu.bundle.atomic import folder_lock, write_file_atomically
from cosyvoice_cpu.bundle.manifest import Manifest, dump_manifest, parse_manifest
from cosyvoice_cpu.bundle.reader import Bundle, open_bundle
from cosyvoice_cpu.bundle.writer import BundleWriter, ComponentDraft

__all__ = [
    "Bundle",
    "BundleWriter",
    "ComponentDraft",
    "Manifest",
    "dump_manifest",
    "folder_lock",
    "open_bundle",
    "parse_manifest",
    "write_file_atomically",
]
