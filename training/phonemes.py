"""Phoneme labels for speech tokens.

hibari gives time to stress marks, blanks and punctuation too. None of them can be heard, so their
time goes to a neighbour: stress marks and blanks to the phoneme that follows, punctuation and the
edges to silence where the signal is quiet, else to the phoneme before. Its last phonemes reach into
the digital silence after the voice; that is silence too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.corpus import Utterance

# Ids of the Kokoro/misaki alphabet, which hibari shares.
PAUSES = (0, *range(1, 16))  # edges and punctuation
BLANK = 16
JOINED_TO_NEXT = (BLANK, 156, 157)  # and primary and secondary stress
PHONEMES = (
    *(24, 25, 31, 33, 36, 39, 41),  # A I O Q T W Y: diphthongs, and T for a flapped t
    *(
        42,
        43,
        44,
        46,
        47,
        48,
        50,
        51,
        52,
        53,
        54,
        55,
        56,
        57,
        58,
        61,
        62,
        63,
        64,
        65,
        67,
        68,
    ),  # ᵊ a b d .. z
    *(
        69,
        70,
        71,
        72,
        76,
        81,
        82,
        83,
        85,
        86,
        87,
        92,
        102,
        112,
        119,
    ),  # ɑ ɐ ɒ æ ɔ ð ʤ ə ɚ ɛ ɜ ɡ ɪ ŋ θ
    *(123, 125, 131, 133, 135, 138, 147, 148, 177),  # ɹ ɾ ʃ ʧ ʊ ʌ ʒ ʔ ᵻ
)
SILENCE = 0
CLASSES = 1 + len(PHONEMES)
# Mean log-mel of a token. Speech lies near -4.5, digital silence at -11.5; a comma's pause is a
# decay near -7.5.
QUIET_PAUSE = -6.5
DIGITAL_SILENCE = -10.3
_UNITS_PER_TOKEN = 1.6  # a unit is 25 ms, a token 40 ms

_CLASS_OF = np.zeros(256, np.int64)
for _number, _phoneme in enumerate(PHONEMES):
    _CLASS_OF[_phoneme] = _number + 1


def token_labels(utterance: Utterance) -> NDArray[np.int64]:
    """The class at the centre of every speech token, [N]; 0 is silence."""
    centres = ((np.arange(utterance.tokens) + 0.5) * _UNITS_PER_TOKEN).astype(int)
    centres = np.minimum(centres, len(utterance.units) - 1)
    spoken = _spread(np.asarray(utterance.units))
    energy = utterance.mel.astype(np.float32).mean(1).reshape(-1, 2).mean(1)
    pause = np.isin(utterance.units, PAUSES)[centres]
    silent = (pause & (energy < QUIET_PAUSE)) | (energy < DIGITAL_SILENCE)
    return np.where(silent, SILENCE, _CLASS_OF[spoken[centres]])


def _spread(units: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every unit as a phoneme: stress marks and blanks take the next phoneme, pauses the one
    before.
    """
    out = units.copy()
    following = 0
    for i in range(len(out) - 1, -1, -1):
        if out[i] in JOINED_TO_NEXT:
            out[i] = following
        else:
            following = out[i]
    before = 0
    for i in range(len(out)):
        if out[i] in PAUSES:
            out[i] = before
        else:
            before = out[i]
    return out
