"""Fun-CosyVoice3-0.5B as data.

Sources: CosyVoice cosyvoice/tokenizer/tokenizer.py (special tokens, in order: the order is the id),
cosyvoice/llm/llm.py CosyVoice3LM (special ids), cosyvoice/cli/model.py CosyVoice3Model (silent
tokens), cosyvoice/flow/flow.py (10 solver steps).
"""

from __future__ import annotations

from cosyvoice_cpu.generations.base import Generation, SpecialIds
from cosyvoice_cpu.generations.cosyvoice3_components import COMPONENTS

_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|endofprompt|>")

_SOUNDS = """
[breath] <strong> </strong> [noise] [laughter] [cough] [clucking] [accent] [quick_breath]
<laughter> </laughter> [hissing] [sigh] [vocalized-noise] [lipsmack] [mn]
""".split()

_ARPABET = """
AA AA0 AA1 AA2 AE AE0 AE1 AE2 AH AH0 AH1 AH2 AO AO0 AO1 AO2 AW AW0 AW1 AW2 AY AY0 AY1 AY2 B
CH D DH EH EH0 EH1 EH2 ER ER0 ER1 ER2 EY EY0 EY1 EY2 F G HH IH IH0 IH1 IH2 IY IY0 IY1 IY2 JH
K L M N NG OW OW0 OW1 OW2 OY OY0 OY1 OY2 P R S SH T TH UH UH0 UH1 UH2 UW UW0 UW1 UW2 V W Y Z
ZH
""".split()

# Initials and finals, with and without tone; neither set is complete, and case tells [B] from [b].
_PINYIN = """
a ai an ang ao b c ch d e ei en eng f g h i ian in ing iu ià iàn iàng iào iá ián iáng iáo iè
ié iòng ióng iù iú iā iān iāng iāo iē iě iōng iū iǎ iǎn iǎng iǎo iǒng iǔ j k l m n o ong ou
p q r s sh t u uang ue un uo uà uài uàn uàng uá uái uán uáng uè ué uì uí uò uó uā uāi uān
uāng uē uě uī uō uǎ uǎi uǎn uǎng uǐ uǒ vè w x y z zh à ài àn àng ào á ái án áng áo è èi èn
èng èr é éi én éng ér ì ìn ìng í ín íng ò òng òu ó óng óu ù ùn ú ún ā āi ān āng āo ē ēi ēn
ēng ě ěi ěn ěng ěr ī īn īng ō ōng ōu ū ūn ǎ ǎi ǎn ǎng ǎo ǐ ǐn ǐng ǒ ǒng ǒu ǔ ǔn ǘ ǚ ǜ
""".split()

COSYVOICE3 = Generation(
    name="cosyvoice3",
    title="Fun-CosyVoice3",
    checkpoint_adapter="cosyvoice_cpu.checkpoint.cosyvoice3",
    yaml_file="cosyvoice3.yaml",
    speech_lm_files={"base": "llm.pt", "rl": "llm.rl.pt"},
    flow_file="flow.pt",
    vocoder_file="hift.pt",
    tied_keys={"llm.model.lm_head.weight": "llm.model.model.embed_tokens.weight"},
    text_folder="CosyVoice-BlankEN",
    speaker_encoder_file="campplus.onnx",
    speech_tokenizer_file="speech_tokenizer_v3.onnx",
    special_ids=SpecialIds(sos=0, eos=1, task=2, stop_first=0, stop_count=200, original_banned=0),
    speech_table_extra_rows=200,
    special_tokens=(
        *_CONTROL,
        *_SOUNDS,
        "<|endofsystem|>",
        *(f"[{phone}]" for phone in _ARPABET),
        *(f"[{part}]" for part in _PINYIN),
    ),
    system_prefix="You are a helpful assistant.",
    end_of_prompt="<|endofprompt|>",
    silent_tokens=frozenset({1, 2, 28, 29, 55, 248, 494, 2241, 2242, 2322, 2323}),
    silent_run_limit=5,
    min_token_text_ratio=2.0,
    max_token_text_ratio=20.0,
    solver_steps=10,
    fixed_noise_frames=50 * 300,  # cosyvoice/flow/flow_matching.py, CausalConditionalCFM
    vocoder_lookahead_frames=8,
    f0_lookahead_frames=3,  # cosyvoice/hifigan/f0_predictor.py, CausalConvRNNF0Predictor
    components=COMPONENTS,
)
