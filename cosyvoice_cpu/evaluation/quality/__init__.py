"""Measures of speech quality: any two bundles, checkpoints or engines, on fixed sentences."""

from cosyvoice_cpu.evaluation.quality.checking import QualityReport, check_quality
from cosyvoice_cpu.evaluation.quality.comparison import compare
from cosyvoice_cpu.evaluation.quality.estimators import Ears
from cosyvoice_cpu.evaluation.quality.measures import MEASURES, named
from cosyvoice_cpu.evaluation.quality.recogniser import Recogniser, load_recogniser
from cosyvoice_cpu.evaluation.quality.sentences import Sentence, all_sentences, first_sentences
from cosyvoice_cpu.evaluation.quality.speakers import VoiceJudge, load_resemblyzer
from cosyvoice_cpu.evaluation.quality.systems import Setting, Side
from cosyvoice_cpu.evaluation.quality.table import QualityTable
from cosyvoice_cpu.evaluation.quality.thresholds import judge

__all__ = [
    "MEASURES",
    "Ears",
    "QualityReport",
    "QualityTable",
    "Recogniser",
    "Sentence",
    "Setting",
    "Side",
    "VoiceJudge",
    "all_sentences",
    "check_quality",
    "compare",
    "first_sentences",
    "judge",
    "load_recogniser",
    "load_resemblyzer",
    "named",
]
