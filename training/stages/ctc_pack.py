"""The sibling's weights -> its checkpoint folder, laid out like the published ones of its family.

In: ``ctc.pt``. Out: a folder that ``core.load`` and transformers' ``GraniteSpeech5ForCTC`` both
read as it is. Weights are bfloat16, the statistics of batch norms float32.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from core.checkpoint.config_granite_speech5_ctc import EXTRACTOR, STANDARD_FRONT_END
from core.model.features import DYNAMIC_RANGE
from core.text.ctc_tokenizer import SENTENCEPIECE_BLANK as BLANK_TOKEN
from training.architecture import raw_ctc_config
from training.saving import read_state
from training.stages.ctc_stage import menu_tokenizer
from training.stages.pack import write_json

# Without it a copy of the folder would be trusted with clips as long as the published model's.
DESCRIPTION = {"family": "5.0-ctc", "licence": "CC BY-SA 4.0", "reliable_s": 8.0}


def _stored(name: str, value: Tensor) -> Tensor:
    keep = "running_" in name or not value.is_floating_point()
    return (value if keep else value.bfloat16()).contiguous()


def run(checkpoints: Path, folder: Path) -> Path:
    """Write the folder; earlier files in it are replaced."""
    weights = read_state(checkpoints / "ctc.pt", ("weights",))["weights"]
    tokenizer = menu_tokenizer()
    folder.mkdir(parents=True, exist_ok=True)
    stored = {name: _stored(name, value) for name, value in weights.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    front = asdict(STANDARD_FRONT_END)
    front |= {
        "feature_extractor_type": EXTRACTOR,
        "feature_size": STANDARD_FRONT_END.row_width,
        "logmel_floor_db": DYNAMIC_RANGE,
        "num_mel_bins": front.pop("n_mels"),
    }
    names = {"pad_token": BLANK_TOKEN, "unk_token": BLANK_TOKEN}
    kind = {"clean_up_tokenization_spaces": False, "tokenizer_class": "ParakeetTokenizer"}
    processor = {"feature_extractor": front, "processor_class": "GraniteSpeech5Processor"}
    write_json(folder / "config.json", raw_ctc_config(tokenizer.get_vocab_size()))
    write_json(folder / "processor_config.json", processor)
    write_json(folder / "tokenizer_config.json", names | kind)
    write_json(folder / "lab.json", DESCRIPTION)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
