"""The library's front door: a bundle that speaks.

synthesizer = Synthesizer.load("bundle/")
synthesizer.speak("Hello.", speaker="anna").save("hello.wav")
for audio in synthesizer.stream(long_text, speaker="anna"):
    play(audio.samples)

bob = synthesizer.make_speaker("bob", "bob.m4a", "What he says in it.")
bob.save("speakers/bob.safetensors")
synthesizer.speak("Hello.", speaker=bob)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET, SPEAKERS_FOLDER
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.decoding.length_guard import DEFAULT_RETRIES
from cosyvoice_cpu.errors import BundleError, UsageError
from cosyvoice_cpu.frontend.bundle_models import front_end_models, text_tokenizer
from cosyvoice_cpu.frontend.clip import Clip, ClipSource, read_clip
from cosyvoice_cpu.frontend.clip_quality import best_cut
from cosyvoice_cpu.frontend.language import check_language
from cosyvoice_cpu.frontend.lexicon import Lexicon
from cosyvoice_cpu.frontend.marks import MarkTable, mend_mark
from cosyvoice_cpu.frontend.prepare import PreparedSpeaker, prepare_speaker
from cosyvoice_cpu.frontend.prompt_spec import prompt_spec
from cosyvoice_cpu.frontend.reading import Note, Pause, Reader, ReadingOptions
from cosyvoice_cpu.frontend.speaker_folders import find_speaker
from cosyvoice_cpu.frontend.speakers import Speaker
from cosyvoice_cpu.frontend.tokenizer import TextTokenizer
from cosyvoice_cpu.generations import generation_named
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.ladder import Engines
from cosyvoice_cpu.stage_api import Stages
from cosyvoice_cpu.synthesis.audio import Audio, join
from cosyvoice_cpu.synthesis.delivery import AS_MADE, Delivery
from cosyvoice_cpu.synthesis.pieces import Encode
from cosyvoice_cpu.synthesis.pipeline import Pipeline
from cosyvoice_cpu.synthesis.postprocessing import check_speed
from cosyvoice_cpu.synthesis.prompts import Voice, build_prompt, check_mode
from cosyvoice_cpu.synthesis.report import Progress
from cosyvoice_cpu.synthesis.request import Request
from cosyvoice_cpu.synthesis.streaming import AudioStream, read_in_threads, stream_workers
from cosyvoice_cpu.system.threads import resolve_threads

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Audio", "Speaker", "Synthesizer"]

log = logging.getLogger(__name__)

_LARGEST_SEED = 2**63 - 1


class SpeakOptions(TypedDict, total=False):
    """How a text is to be spoken; what is left out is as its comment says."""

    seed: int  # decides every draw: the same call gives the same audio; 0
    mode: str | None  # "zero-shot", "cross-lingual", "instruct"; what speaker and instruction allow
    instruct: str | None  # an instruction, for mode "instruct"
    speed: float  # 0.5 to 2; 1
    rate: int | None  # Hz of the audio; the model's
    preset: str  # of the flow's solver, such as "fast", if the bundle has it; "default"
    loudness: float | None  # LUFS, peaks below -1 dBFS; as it is. Nothing is clipped.
    normalize: bool  # write out numbers and the like; True
    markup: bool  # read Markdown, tags and `[pause 500ms]` as such; True
    language: str | None  # of the numbers, a code such as "en"; that of each paragraph
    lexicon: Lexicon | Mapping[str, str] | str | Path | None  # readings of words, or their file
    retries: int  # of speech that loops, falls silent or does not end; 0 takes what comes; 2
    progress: Progress | None


class Synthesizer:
    """Speaks texts with one model. Loaded once, it may be used from several threads."""

    def __init__(
        self,
        stages: Stages,
        encode: Encode,
        find_speaker: Callable[[str | None], Voice],
        marks: Collection[str] = (),
        bundle: Bundle | None = None,
    ) -> None:
        """`encode` gives text ids, `marks` are the strings that it has one id for.

        `bundle` holds the front end that makes speakers.
        """
        self._bundle = bundle
        self._pipeline = Pipeline(stages, encode)
        self._find_speaker = find_speaker
        self._marks = MarkTable(marks)

    @classmethod
    def load(
        cls,
        bundle: str | Path,
        threads: int | None = None,
        *,
        speakers: str | Path | None = None,
        engines: Engines | None = None,
    ) -> Synthesizer:
        """The synthesizer of the bundle at `bundle`.

        `threads` None takes the physical cores at hand. `speakers` is a folder of speaker files
        that comes before the bundle's own. `engines` run single components in place of the
        manifest's. Raises: BundleError, ManifestError, UsageError.
        """
        stages = BundleStages.load(Path(bundle), resolve_threads(threads), engines=engines)
        return cls.of_bundle(stages, speakers=speakers)

    @classmethod
    def of_bundle(cls, stages: BundleStages, *, speakers: str | Path | None = None) -> Synthesizer:
        """The synthesizer of a bundle that is loaded already. Raises: BundleError."""
        folders = [stages.bundle_path / SPEAKERS_FOLDER]
        if speakers is not None:
            folders.insert(0, Path(speakers))
        spec = prompt_spec(stages.manifest)
        return cls(
            stages,
            _tokenizer_of(stages.bundle).encode,
            lambda name: find_speaker(folders, name, spec),
            generation_named(stages.manifest.generation).special_tokens,
            stages.bundle,
        )

    def make_speaker(
        self, name: str, clip: ClipSource, transcript: str = "", *, trim: bool = False
    ) -> Speaker:
        """A speaker from a clip of 3 to 10 s, and the words spoken in it, "" if unknown.

        `clip` is a path, the bytes of an audio file, an open file, samples with their rate in Hz as
        (samples, rate), or an `Audio`. `trim` takes the best part of a longer one. What may harm
        the voice is logged as a warning. The speaker goes to `speak` and `stream` as it is;
        `Speaker.save` and `Speaker.load` keep it in a file.
        Raises: AudioError if the clip can't be read or can't serve, TextError for the transcript,
        SpeakerError for the name, BundleError if the bundle has no front end.
        """
        if self._bundle is None:
            raise UsageError("this synthesizer has no bundle, so no speaker encoder", "load one")
        prepared = speaker_from_clip(self._bundle, name, clip, transcript, trim=trim)
        for warning in prepared.report.warnings:
            log.warning("speaker %s: %s", name, warning)
        return prepared.speaker

    @property
    def sample_rate(self) -> int:
        """Hz of all audio, unless another rate is asked for."""
        return self._pipeline.stages.audio.sample_rate

    def count_text_ids(self, text: str) -> int:
        """Ids of `text` as it is typed; the speech LM sees them normalized and in pieces."""
        return len(self._pipeline.encode(text))

    def speak(
        self,
        text: str,
        speaker: Voice | str | None = None,
        *,
        streaming: bool = False,
        **options: Unpack[SpeakOptions],
    ) -> Audio:
        """The whole `text` as one audio, whose `report` says what it took.

        `speaker` is a speaker or the name of one, None for the bundle's only one. `streaming` gives
        what `stream` would: its chunks see less of what follows them. `options` are those of
        `SpeakOptions`.
        Raises: TextError, SpeakerError, UsageError for a request that can't be carried out,
        SynthesisError if the models fail on it.
        """
        if streaming:
            return join(list(self.stream(text, speaker, **options)))
        return join(list(self.pieces(text, speaker, **options)))

    def pieces(
        self, text: str, speaker: Voice | str | None = None, **options: Unpack[SpeakOptions]
    ) -> Generator[Audio, None, None]:
        """Like `speak`, a few sentences at a time, each as soon as it is ready.

        Joined, the audio is that of `speak`. What is wrong with the request is raised by this call
        and not by the first step of the iteration.
        """
        return self._pipeline.speak(self._request(text, speaker, **options))

    def stream(
        self,
        text: str,
        speaker: Voice | str | None = None,
        *,
        workers: int | None = None,
        **options: Unpack[SpeakOptions],
    ) -> AudioStream:
        """Sound as it is made: the first as soon as it is final, then about a second at a time.

        Joined, the audio is that of `speak(..., streaming=True)`. It is computed in `workers`
        threads (1 to 3, None for one), a few seconds ahead of who reads it;
        0 computes in the thread that reads, block by block as they are asked for.
        Closing the stream, or dropping it, ends the work. Errors are raised like by `pieces`.
        """
        request = self._request(text, speaker, **options)
        return self._pipeline.stream(request, stream_workers(workers))

    async def stream_async(
        self,
        text: str,
        speaker: Voice | str | None = None,
        *,
        workers: int | None = None,
        **options: Unpack[SpeakOptions],
    ) -> AsyncIterator[Audio]:
        """`stream` for an event loop, which is free while a block is computed.

        Cancelling the task that reads, or `aclose`, ends the work.
        """
        blocks = await asyncio.to_thread(
            lambda: self.stream(text, speaker, workers=workers, **options)
        )
        async for block in read_in_threads(blocks):
            yield block

    def show(
        self, text: str, speaker: Voice | str | None = None, **options: Unpack[SpeakOptions]
    ) -> Iterator[str | Pause | Note]:
        """What the model would be given of `text`: pieces, pauses and, before them, notes.

        Nothing is spoken. Arguments and errors are those of `speak`.
        """
        return self._pipeline.show(self._request(text, speaker, **options))

    def _request(
        self,
        text: str,
        speaker: Voice | str | None,
        *,
        seed: int = 0,
        mode: str | None = None,
        instruct: str | None = None,
        speed: float = 1.0,
        rate: int | None = None,
        loudness: float | None = None,
        preset: str = DEFAULT_PRESET,
        normalize: bool = True,
        markup: bool = True,
        language: str | None = None,
        lexicon: Lexicon | Mapping[str, str] | str | Path | None = None,
        retries: int = DEFAULT_RETRIES,
        progress: Progress | None = None,
    ) -> Request:
        """The request, checked."""
        started = time.perf_counter()
        delivery = Delivery(rate, loudness)
        options = self._reading(normalize, markup, language, lexicon)
        check_request(
            seed=seed, speed=speed, mode=mode, instruct=instruct, delivery=delivery, retries=retries
        )
        voice: Voice
        if speaker is None or isinstance(speaker, str):
            voice = self._find_speaker(speaker)
        else:
            voice = speaker
        synthesis = self._pipeline.stages.synthesis
        synthesis.preset(preset)  # raises where there is no such
        prompt, target = build_prompt(
            mend_mark(text, synthesis.end_of_prompt),
            voice,
            mode=mode,
            instruct=instruct if instruct is None else mend_mark(instruct, synthesis.end_of_prompt),
            system_prefix=synthesis.system_prefix,
            end_of_prompt=synthesis.end_of_prompt,
        )
        return Request(
            text=target,
            prompt=prompt,
            seed=seed,
            speed=speed,
            delivery=delivery,
            preset=preset,
            read=Reader(self._marks, options).items,
            retries=retries,
            progress=progress,
            started=started,
            frontend_seconds=time.perf_counter() - started,
        )

    def _reading(
        self,
        normalize: bool,
        markup: bool,
        language: str | None,
        lexicon: Lexicon | Mapping[str, str] | str | Path | None,
    ) -> ReadingOptions:
        """Raises: UsageError for the language, TextError for the lexicon."""
        if isinstance(lexicon, (str, Path)):
            lexicon = Lexicon.load(lexicon, self._marks.known)
        elif lexicon is not None and not isinstance(lexicon, Lexicon):
            lexicon = Lexicon(lexicon, self._marks.known)
        return ReadingOptions(check_language(language), normalize, markup, lexicon)


def check_request(
    *,
    seed: int = 0,
    speed: float = 1.0,
    mode: str | None = None,
    instruct: str | None = None,
    delivery: Delivery = AS_MADE,
    retries: int = DEFAULT_RETRIES,
) -> None:
    """Raises: UsageError for what no model, speaker or text could make right."""
    check_speed(speed)
    if not 0 <= seed <= _LARGEST_SEED:
        raise UsageError(f"the seed {seed} is outside 0 to 2^63 - 1", "take a small number")
    if retries < 0:
        raise UsageError(f"{retries} retries can't be made", "give 0 or more")
    check_mode(mode, instruct)
    delivery.check()


def speaker_from_clip(
    bundle: Bundle,
    name: str,
    clip: ClipSource | Clip,
    transcript: str = "",
    *,
    trim: bool = False,
) -> PreparedSpeaker:
    """A speaker for `bundle` from a clip and the words spoken in it, "" if unknown.

    `trim` takes the best 3 to 10 s of the clip; the transcript must be that of this part.
    Raises: AudioError if the clip can't be read or can't serve, TextError for the transcript,
    SpeakerError for the name, BundleError if the bundle has no front end.
    """
    models, tokenizer = front_end_models(bundle), _tokenizer_of(bundle)
    if not isinstance(clip, Clip):
        clip = read_clip(clip, trim=trim)
    samples, rate = clip.samples, clip.rate
    if trim:
        start, end = best_cut(samples, rate)
        samples = samples[start:end]
    prepared = prepare_speaker(
        name,
        samples,
        rate,
        transcript,
        models=models,
        tokenizer=tokenizer,
        spec=prompt_spec(bundle.manifest),
        end_of_prompt=bundle.manifest.synthesis.end_of_prompt,
    )
    warnings = (*clip.warnings, *prepared.report.warnings)
    return replace(prepared, report=replace(prepared.report, warnings=warnings))


def _tokenizer_of(bundle: Bundle) -> TextTokenizer:
    tokenizer = text_tokenizer(bundle)
    if tokenizer is None:
        raise BundleError(
            f"{bundle.path} has no text_tokenizer, so it speaks from ids only",
            "export a checkpoint with its CosyVoice-BlankEN folder, without --no-front-end",
        )
    return tokenizer
