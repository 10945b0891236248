"""What stands before the networks: audio features, text ids, sentences, speakers. No torch."""

from cosyvoice_cpu.frontend.fbank import kaldi_fbank
from cosyvoice_cpu.frontend.mel import mel_spectrogram, whisper_log_mel
from cosyvoice_cpu.frontend.normalizer import normalize
from cosyvoice_cpu.frontend.resampling import resample
from cosyvoice_cpu.frontend.sentences import split_sentences
from cosyvoice_cpu.frontend.tokenizer import TextTokenizer

__all__ = [
    "TextTokenizer",
    "kaldi_fbank",
    "mel_spectrogram",
    "normalize",
    "resample",
    "split_sentences",
    "whisper_log_mel",
]
