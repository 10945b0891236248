"""Makes the embedded demo: the checkpoint in `demo_voice/` through the ordinary export, the clips
beside it through the ordinary front end, with the solver presets that were judged for it.

python -m tools.make_demo_bundle [FOLDER] [--storage float32]

The same sources, versions and processor give the same bytes. On other processors the last bits of
what is computed in float32 differ (speakers, parity errors), which a test allows for.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.errors import CosyVoiceError
from cosyvoice_cpu.export.exporter import export_checkpoint
from cosyvoice_cpu.frontend.speaker_folders import add_speaker
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.synthesis.synthesizer import speaker_from_clip

SOURCES = Path(__file__).parent.parent / "demo_voice"
CHECKPOINT = SOURCES / "checkpoint"
PROMPTS = SOURCES / "prompts"
PRESETS = SOURCES / "presets.json"  # of `python -m tools.judge_demo_presets`
EMBEDDED_STORAGE = "float16"  # as the checkpoint stores its weights
MAX_SECONDS = 40.0  # of audio with prompt: a shorter ladder than the default has fewer files


def make_demo_bundle(
    bundle: Path, storage: str = EMBEDDED_STORAGE, presets: Path | None = PRESETS
) -> None:
    """Write the demo to `bundle`, in place of what is there.

    `presets` None makes it for a search of solver presets. Raises: CosyVoiceError.
    """
    export_checkpoint(
        CHECKPOINT,
        bundle,
        storage=storage,
        max_seconds=MAX_SECONDS,
        presets=presets,
        overwrite=True,
    )
    stages = BundleStages.load(bundle)
    for clip in sorted(PROMPTS.glob("*.flac")):
        # Without transcript a clip speaks cross-lingual: the demo's speech LM is better that way.
        written = clip.with_suffix(".txt")
        transcript = written.read_text(encoding="utf-8").strip() if written.exists() else ""
        prepared = speaker_from_clip(stages.bundle, clip.stem, clip, transcript)
        add_speaker(stages.bundle.speakers_folder, prepared.speaker)


def main() -> int:
    """Parse the command line and make it; exit code 1 where that fails."""
    parser = argparse.ArgumentParser(prog="python -m tools.make_demo_bundle", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DEMO_BUNDLE)
    parser.add_argument(
        "--storage",
        choices=["float16", "float32"],
        default=EMBEDDED_STORAGE,
        help="float32 for `quantize`, which starts from there (default: as embedded, %(default)s)",
    )
    arguments = parser.parse_args()
    try:
        make_demo_bundle(arguments.folder, arguments.storage)
    except CosyVoiceError as error:
        print(error.lines(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
