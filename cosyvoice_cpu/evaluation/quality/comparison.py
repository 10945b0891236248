"""Two systems on the same sentences, measured item by item.

    reference ── text ─> tokens ─> mel ─> excitation ─> audio    free-running, and the teacher
                           │        │         │
                           │        ├─> f0    ├─> audio          candidate, teacher-forced
                           └─> logits, mel ───┴─> audio
    candidate ── text ─> tokens ─> mel ─> excitation ─> audio    free-running

Without a reference only the candidate's free-running speech is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cosyvoice_cpu.evaluation.distances import (
    f0_error_cents,
    kl_divergence_nats,
    log_mel,
    log_mel_correlation,
    mel_error_db,
    spectrum_difference_db,
    sqnr_db,
    top1_agreement,
    voiced_in_both,
    voicing_agreement,
)
from cosyvoice_cpu.evaluation.plots import require_pictures, write_spectrograms
from cosyvoice_cpu.evaluation.quality.estimators import Estimator, Length, OpinionScore, needed
from cosyvoice_cpu.evaluation.quality.measures import MEASURES, Measure, Of
from cosyvoice_cpu.evaluation.quality.sentences import Sentence
from cosyvoice_cpu.evaluation.quality.systems import (
    Condition,
    Rendering,
    System,
    draw_tokens,
    logits_of,
    mel_of,
    render,
    require_finite,
)
from cosyvoice_cpu.evaluation.quality.table import ItemResult, QualityTable
from cosyvoice_cpu.progress import Progress, no_progress
from cosyvoice_cpu.synthesis.loudness import loudness_lufs

_SHORTEST_SECONDS = 0.05  # of audio that has a spectrum to compare


def compare(
    reference: System | None,
    candidate: System,
    items: Sequence[Sentence],
    measures: Sequence[Measure] = MEASURES,
    *,
    condition: Condition,
    estimators: Sequence[Estimator] = (),
    seed: int = 0,
    draws: int = 1,
    pictures: Path | None = None,
    notes: Sequence[str] = (),
    progress: Progress = no_progress,
) -> QualityTable:
    """Measure `candidate`, against `reference` if there is one, on `items` one by one.

    `seed` decides the speech LMs' draws, the same for both systems, and the bootstrap; with more
    than one of `draws` free-running values are means over as many seeds from there on. `pictures`
    is a folder for one PNG per item: the spectrograms of the reference and of the candidate,
    teacher-forced, side by side. `notes` go into the table: what could not be measured, and why.
    Raises: what the stages raise, SynthesisError for values that are not finite, OutputError for a
    picture that can't be written, MissingExtraError for pictures without Pillow.
    """
    if pictures:
        require_pictures()
    names = {measure.name for measure in measures}
    estimators = needed([Length(), *estimators], names)
    for estimator in estimators:
        estimator.prepare(reference or candidate, condition)
    results = []
    for number, sentence in enumerate(items):
        progress(f"{sentence.name}, {number + 1} of {len(items)}", number / len(items))
        result = ItemResult(sentence)
        text_ids = condition.text_ids(sentence.text)
        tokens, lost = draw_tokens(candidate, condition, text_ids, seed=seed, item=number)
        if reference is None:
            said = render(candidate, condition, tokens, lost)
            shown = [said]
            _estimate(estimators, {"candidate": said}, result)
        else:
            drawn = draw_tokens(reference, condition, text_ids, seed=seed, item=number)
            taught = render(reference, condition, *drawn)
            said = render(candidate, condition, tokens, lost)
            shown = [taught, said]
            if taught.tokens:
                compare_speech_lm(reference, candidate, condition, text_ids, taught, result)
                forced = teach(reference, candidate, condition, taught, result)
                compare_renderings(taught, forced, condition.audio.sample_rate, result)
                shown[1] = forced
            _estimate(estimators, {"reference": taught, "candidate": said}, result)
            if taught.tokens:
                _estimate_forced(estimators, forced, result)
        systems: dict[Of, System] = {"reference": reference} if reference else {}
        systems["candidate"] = candidate
        further = range(seed + 1, seed + draws)
        result.average(
            [_redrawn(systems, condition, sentence, estimators, s, number) for s in further]
        )
        if pictures:
            audio = [utterance.audio for utterance in shown]
            write_spectrograms(
                pictures / f"{sentence.name}.png", audio, condition.audio.sample_rate
            )
        results.append(result)
    progress("done", 1.0)
    return QualityTable(
        reference=reference.name if reference else None,
        candidate=candidate.name,
        seed=seed,
        measures=tuple(measures),
        items=results,
        notes=tuple(notes),
    )


def _redrawn(
    systems: Mapping[Of, System],
    condition: Condition,
    sentence: Sentence,
    estimators: Sequence[Estimator],
    seed: int,
    item: int,
) -> ItemResult:
    """One more draw of a sentence by each system."""
    result = ItemResult(sentence)
    text_ids = condition.text_ids(sentence.text)
    said = {
        of: render(
            system, condition, *draw_tokens(system, condition, text_ids, seed=seed, item=item)
        )
        for of, system in systems.items()
    }
    _estimate(estimators, said, result)
    return result


def _estimate(
    estimators: Sequence[Estimator], said: Mapping[Of, Rendering], result: ItemResult
) -> None:
    for estimator in estimators:
        estimator.estimate(said, result)


def _estimate_forced(
    estimators: Sequence[Estimator], forced: Rendering, result: ItemResult
) -> None:
    for estimator in estimators:
        if isinstance(estimator, OpinionScore):
            estimator.estimate_forced(forced, result)


def compare_speech_lm(
    reference: System,
    candidate: System,
    condition: Condition,
    text_ids: list[int],
    taught: Rendering,
    result: ItemResult,
) -> None:
    """Note how far the predictions behind the reference's tokens are apart."""
    want, got = (
        logits_of(system, condition, text_ids, taught.tokens) for system in (reference, candidate)
    )
    result.put("logits_sqnr_db", sqnr_db(got, want))
    result.put("token_agreement", top1_agreement(want, got), len(want))
    result.put("kl_nats", kl_divergence_nats(want, got), len(want))


def teach(
    reference: System,
    candidate: System,
    condition: Condition,
    taught: Rendering,
    result: ItemResult,
) -> Rendering:
    """The candidate's mel and audio of the reference's tokens; notes f0 and vocoder on the way.

    The excitation is the reference's throughout: its phase is the sum of f0 over all the time
    before, so that a difference that nobody hears would end in other samples.
    Raises: SynthesisError for values that are not finite.
    """
    f0, f0_got = (
        require_finite(system, "f0 predictor", system.stages.mel_to_f0(taught.mel))
        for system in (reference, candidate)
    )
    result.put("voicing_agreement", voicing_agreement(f0, f0_got), len(f0))
    if voiced := voiced_in_both(f0, f0_got):
        result.put("f0_error_cents", f0_error_cents(f0, f0_got), voiced)
    source = reference.stages.f0_to_source(f0)
    mel = mel_of(candidate, condition, taught.tokens)
    vocoded, audio = (
        require_finite(candidate, "vocoder", candidate.stages.mel_to_waveform(part, source=source))
        for part in (taught.mel, mel)
    )
    result.put("vocoder_snr_db", sqnr_db(vocoded, taught.audio))
    return Rendering(taught.tokens, taught.lost, mel, audio)


def compare_renderings(
    taught: Rendering, forced: Rendering, sample_rate: int, result: ItemResult
) -> None:
    """Note how far mel and audio of the same speech tokens are apart."""
    result.put("mel_correlation", log_mel_correlation(taught.mel, forced.mel))
    result.put("mel_error_db", mel_error_db(taught.mel, forced.mel))
    if len(taught.audio) < _SHORTEST_SECONDS * sample_rate:
        return
    want, got = (log_mel(said.audio, sample_rate) for said in (taught, forced))
    result.put("audio_correlation", log_mel_correlation(want, got))
    result.put("spectrum_error_db", spectrum_difference_db(forced.audio, taught.audio))
    before, after = (loudness_lufs(said.audio, sample_rate) for said in (taught, forced))
    result.put("loudness_change_db", abs(after - before))
