"""The recipe of the demo voice: generated speech in, a small Fun-CosyVoice3-shaped checkpoint out.

Stages, in order: `data`, `speech_tokenizer`, `tokens`, `flow`, `vocoder`, `f0`, `speech_lm`,
`speaker_encoder`, `assemble`. Each keeps its whole state in a folder outside the repository and
goes on where it stopped: `python -m training --stage NAME --state DIR`.
"""
