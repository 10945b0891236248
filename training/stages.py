"""The stages of the recipe by name, with the settings of every network."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from training.corpus import Corpus, make_corpus
from training.settings import SETTINGS
from training.trainer import Settings, Task, load_averaged, train

TOKENIZER_SHARDS = 12  # 5.4 h of the corpus: enough for phonemes, and there before the rest is made
MAIN_SHARDS = 25  # 11.4 h of the main voice; further voices come behind
DATA_HOURS, PAIR_HOURS = 11.0, 60.0
PAIR_SHARDS = 80  # 70 h

logger = logging.getLogger(__name__)


def _corpus_folder(state: Path) -> Path:
    return state / "corpus"


def _run(name: str, task: Task, arguments: argparse.Namespace) -> None:
    train(task, arguments.state / name, _settings(name, arguments))


def _settings(name: str, arguments: argparse.Namespace) -> Settings:
    settings = SETTINGS[name]
    if arguments.steps is not None:
        settings = dataclasses.replace(settings, steps=arguments.steps)
    return settings


def make_data(arguments: argparse.Namespace) -> None:
    """Generate the corpus."""
    from training.hibari_voice import ASSETS, HibariVoice
    from training.vocabulary import load_vocabulary

    make_corpus(
        _corpus_folder(arguments.state),
        HibariVoice(),
        load_vocabulary(ASSETS),
        arguments.hours or DATA_HOURS,
    )


def make_voices(arguments: argparse.Namespace) -> None:
    """Generate a minute of every voice, for the speaker encoder: hibari's speakers, and with
    --styles Kokoro's English ones.
    """
    from training.corpus import make_clips
    from training.hibari_voice import ASSETS, FURTHER, MAIN, HibariVoice
    from training.kokoro_voice import KokoroModel, KokoroVoice
    from training.vocabulary import load_vocabulary

    folder, vocabulary = arguments.state / "voices", load_vocabulary(ASSETS)
    for number, character in enumerate((MAIN, *FURTHER)):
        make_clips(folder, HibariVoice(character), vocabulary, number)
    if arguments.styles is None:
        return
    model = KokoroModel()
    first = 1 + len(FURTHER)
    for number, styles in enumerate(sorted(arguments.styles.glob("[ab][fm]_*.bin")), first):
        make_clips(folder, KokoroVoice(model, styles), vocabulary, number)


def make_further_voices(arguments: argparse.Namespace) -> None:
    """Let each further voice say one shard of the corpus, for flow, vocoder and f0."""
    from training.corpus import make_further
    from training.hibari_voice import FURTHER, HibariVoice

    for number, character in enumerate(FURTHER):
        make_further(_corpus_folder(arguments.state), HibariVoice(character), number)


def train_speaker_encoder(arguments: argparse.Namespace) -> None:
    """Train the speaker encoder on all voices and write its graph."""
    from training.speaker_encoder import (
        SpeakerEncoder,
        SpeakerEncoderTask,
        save_speaker_encoder,
    )

    torch.set_num_threads(arguments.threads)
    folder = arguments.state / "voices"
    _run(
        "speaker_encoder",
        SpeakerEncoderTask([Corpus(folder, "clips")], [Corpus(folder, "heldclips")]),
        arguments,
    )
    network = SpeakerEncoder()
    load_averaged(arguments.state / "speaker_encoder", network)
    save_speaker_encoder(network, arguments.state / "speaker_encoder" / "campplus.onnx")


def assemble_voice(arguments: argparse.Namespace) -> None:
    """Write the checkpoint folder `voice` of the runs' averaged weights, and prompt clips."""
    from training.assemble import PROMPT_TEXTS, assemble, write_prompts
    from training.hibari_voice import FURTHER, HibariVoice

    steps = assemble(arguments.state, arguments.state / "voice")
    prompts = arguments.state / "prompts"
    write_prompts(HibariVoice(), prompts)
    for number, character in enumerate(FURTHER):
        write_prompts(HibariVoice(character), prompts, PROMPT_TEXTS[number : number + 1])
    logger.info("%s, of the steps %s", arguments.state / "voice", steps)


def train_speech_tokenizer(arguments: argparse.Namespace) -> None:
    """Train the speech tokenizer."""
    from training.speech_tokenizer import TokenizerTask

    torch.set_num_threads(arguments.threads)
    folder = _corpus_folder(arguments.state)
    corpus = Corpus(folder, "train", max_shards=TOKENIZER_SHARDS)
    _run("speech_tokenizer", TokenizerTask(corpus, Corpus(folder, "heldout")), arguments)


def train_vocoder(arguments: argparse.Namespace) -> None:
    """Train the vocoder's generator."""
    from training.vocoder import VocoderTask

    torch.set_num_threads(arguments.threads)
    folder = _corpus_folder(arguments.state)
    corpus = Corpus(folder, "train")
    steps = arguments.steps or SETTINGS["vocoder"].steps
    _run("vocoder", VocoderTask(corpus, Corpus(folder, "heldout"), steps), arguments)


def _generated(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """The folders of the corpus and of the flow's mels of it, which are made if there are none."""
    from training.flow import Flow
    from training.token_ids import TokenCorpus
    from training.vocoder_tuning import generate_mels

    folder, generated = _corpus_folder(arguments.state), arguments.state / "generated"
    corpus = TokenCorpus(folder, arguments.state / "tokens", "train")
    flow = Flow()
    load_averaged(arguments.state / "flow", flow)
    generate_mels(flow, corpus, generated)
    return folder, generated


def tune_vocoder(arguments: argparse.Namespace) -> None:
    """Let the flow make mels, then train the vocoder's generator on them, too."""
    from training.vocoder_tuning import VocoderTuningTask

    torch.set_num_threads(arguments.threads)
    folder, generated = _generated(arguments)
    steps = arguments.steps or SETTINGS["vocoder_tuning"].steps
    task = VocoderTuningTask(Corpus(folder, "train"), Corpus(folder, "heldout"), steps, generated)
    load_averaged(arguments.state / "vocoder", task.network)
    task.network.train()
    _run("vocoder_tuning", task, arguments)


def take_finished_voice(arguments: argparse.Namespace) -> None:
    """Take a finished voice for the runs that made it, so that later stages can go on from it."""
    from training.finished_voice import EMBEDDED, write_runs

    torch.set_num_threads(arguments.threads)
    write_runs(arguments.voice or EMBEDDED, arguments.state)


def train_vocoder_adversarial(arguments: argparse.Namespace) -> None:
    """Train the vocoder's generator against discriminators, on recorded and generated mels."""
    from training.discriminators import DISCRIMINATORS
    from training.vocoder_adversarial import VocoderAdversarialTask

    torch.set_num_threads(arguments.threads)
    folder, generated = _generated(arguments)
    settings = _settings("vocoder_adversarial", arguments)
    corpus, heldout = Corpus(folder, "train"), Corpus(folder, "heldout")
    task = VocoderAdversarialTask(corpus, heldout, settings, generated)
    load_averaged(arguments.state / "vocoder_tuning", task.network)
    taught = arguments.state / DISCRIMINATORS
    if taught.exists():
        task.take_discriminators(taught)
    task.network.train()
    train(task, arguments.state / "vocoder_adversarial", settings)
    task.discriminators.save(arguments.state / "vocoder_adversarial" / DISCRIMINATORS)


def train_f0(arguments: argparse.Namespace) -> None:
    """Train the vocoder's f0 predictor."""
    from training.vocoder import F0Task

    torch.set_num_threads(arguments.threads)
    folder = _corpus_folder(arguments.state)
    corpus = Corpus(folder, "train")
    _run("f0", F0Task(corpus, Corpus(folder, "heldout")), arguments)


def make_tokens(arguments: argparse.Namespace) -> None:
    """Choose the ids with the trained tokenizer and encode the corpus."""
    from training.speech_tokenizer import SpeechTokenizer
    from training.token_ids import IdTable, count_codes, encode_shards, encoder_of

    torch.set_num_threads(arguments.threads)
    folder, tokens = _corpus_folder(arguments.state), arguments.state / "tokens"
    tokens.mkdir(exist_ok=True)
    network = SpeechTokenizer()
    load_averaged(arguments.state / "speech_tokenizer", network)
    table_path = tokens / "table.npz"
    if not table_path.exists():
        count_codes(network, Corpus(folder, "train"), texts=2000).save(table_path)
    encode_shards(encoder_of(network, IdTable.load(table_path)), folder, tokens)


def make_lm_pairs(arguments: argparse.Namespace) -> None:
    """Generate texts with tokens for the speech LM."""
    from training.hibari_voice import ASSETS, HibariVoice
    from training.pairs import make_pairs
    from training.prose import example_sentences, speech_sentences
    from training.speech_tokenizer import SpeechTokenizer
    from training.token_ids import IdTable
    from training.vocabulary import load_vocabulary

    torch.set_num_threads(arguments.threads)
    network = SpeechTokenizer()
    load_averaged(arguments.state / "speech_tokenizer", network)
    heldout = frozenset(u.text for u in Corpus(_corpus_folder(arguments.state), "heldout"))
    prose = []
    if arguments.wordnet is not None:
        prose.append(example_sentences(arguments.wordnet))
    if arguments.speeches is not None:
        prose.append(speech_sentences(arguments.speeches))
    make_pairs(
        arguments.state / "pairs",
        HibariVoice(),
        (load_vocabulary(ASSETS), prose),
        (network, IdTable.load(arguments.state / "tokens" / "table.npz")),
        heldout,
        arguments.hours or PAIR_HOURS,
    )


def train_flow(arguments: argparse.Namespace) -> None:
    """Train the flow on the tokens."""
    from training.flow import FlowTask
    from training.speaker_encoder import voice_vector
    from training.token_ids import IdTable, TokenCorpus

    torch.set_num_threads(arguments.threads)
    folder, tokens = _corpus_folder(arguments.state), arguments.state / "tokens"
    corpus = TokenCorpus(folder, tokens, "train")
    heldout = TokenCorpus(folder, tokens, "heldout")
    speakers = {*corpus.corpus.speakers.tolist(), *heldout.corpus.speakers.tolist()}
    embeddings = {speaker: voice_vector(speaker) for speaker in sorted(speakers)}
    table = IdTable.load(tokens / "table.npz")
    _run("flow", FlowTask(corpus, heldout, table, embeddings), arguments)


def train_mel_recogniser(arguments: argparse.Namespace) -> None:
    """Train the recogniser that judges the flow's mels."""
    from training.mel_recogniser import MelRecogniserTask

    torch.set_num_threads(arguments.threads)
    folder = _corpus_folder(arguments.state)
    task = MelRecogniserTask(Corpus(folder, "train"), Corpus(folder, "heldout"))
    _run("mel_recogniser", task, arguments)


def tune_flow(arguments: argparse.Namespace) -> None:
    """Let the speech LM draw the corpus's ids, then train the flow on them, too."""
    from training.flow_tuning import FlowTuningTask, draw_ids
    from training.lm_rows import RowMaker
    from training.measure import load_voice
    from training.mel_recogniser import MelRecogniser
    from training.spelling import Spelling
    from training.token_ids import IdTable, TokenCorpus

    torch.set_num_threads(arguments.threads)
    state = arguments.state
    folder, tokens = _corpus_folder(state), state / "tokens"
    corpus = TokenCorpus(folder, tokens, "train")
    heldout = TokenCorpus(folder, tokens, "heldout")
    drawn = tokens / "drawn.npy"
    draw_ids(load_voice(state)[0].speech_lm, RowMaker(Spelling(state / "text")), corpus, drawn)
    recogniser = MelRecogniser()
    load_averaged(state / "mel_recogniser", recogniser)
    table = IdTable.load(tokens / "table.npz")
    task = FlowTuningTask(corpus, heldout, table, np.load(drawn), recogniser)
    load_averaged(state / "flow", task.network)
    task.network.train()
    _run("flow_tuning", task, arguments)


def measure_word_errors(arguments: argparse.Namespace) -> None:
    """Read back what the networks say so far."""
    from training.measure import measure

    torch.set_num_threads(arguments.threads)
    measure(arguments.state, arguments.texts, arguments.way)


def train_speech_lm(arguments: argparse.Namespace) -> None:
    """Learn the spelling, then train the speech LM on texts and tokens."""
    from training.pairs import Pairs
    from training.speech_lm import SpeechLMTask
    from training.spelling import Spelling, learn_merges, write_tokenizer
    from training.token_ids import IdTable, TokenCorpus, phoneme_of_ids

    torch.set_num_threads(arguments.threads)
    folder, tokens = _corpus_folder(arguments.state), arguments.state / "tokens"
    heldout = Pairs.of_corpus(TokenCorpus(folder, tokens, "heldout"))
    corpus = TokenCorpus(folder, tokens, "train", max_shards=MAIN_SHARDS)
    pairs = Pairs.of_corpus(corpus)
    pairs += Pairs.load(arguments.state / "pairs", max_shards=PAIR_SHARDS)
    text_folder = arguments.state / "text"
    if not text_folder.exists():
        write_tokenizer(text_folder, learn_merges(pairs.texts))
    table = IdTable.load(tokens / "table.npz")
    phonemes = phoneme_of_ids(corpus, texts=2000)
    task = SpeechLMTask(pairs, heldout, Spelling(text_folder), table, phonemes)
    _run("speech_lm", task, arguments)


def run_all(arguments: argparse.Namespace) -> None:
    """Every stage of the recipe in its order, each from where it stopped."""
    for name in RECIPE:
        logger.info("stage %s", name)
        STAGES[name](arguments)


RECIPE = (
    *("data", "further", "speech_tokenizer", "tokens", "f0", "vocoder", "flow", "vocoder_tuning"),
    *("vocoder_adversarial", "pairs", "speech_lm", "mel_recogniser", "flow_tuning"),
    *("voices", "speaker_encoder", "assemble"),
)
STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "all": run_all,
    "data": make_data,
    "further": make_further_voices,
    "voices": make_voices,
    "speaker_encoder": train_speaker_encoder,
    "speech_tokenizer": train_speech_tokenizer,
    "vocoder": train_vocoder,
    "vocoder_tuning": tune_vocoder,
    "vocoder_adversarial": train_vocoder_adversarial,
    "finished_voice": take_finished_voice,
    "f0": train_f0,
    "tokens": make_tokens,
    "flow": train_flow,
    "pairs": make_lm_pairs,
    "speech_lm": train_speech_lm,
    "mel_recogniser": train_mel_recogniser,
    "flow_tuning": tune_flow,
    "assemble": assemble_voice,
    "measure": measure_word_errors,
}
