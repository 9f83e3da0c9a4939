"""The large presets as plain data: which base model, how it writes a dialogue, which SAM, which LoRA."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from medsegr.errors import CheckpointError, MedSegRError

FORMAT = "large-1"
"""In `config.json` of an adapter directory."""
LORA_TARGETS = r".*language_model.*\.(q_proj|v_proj)"
"""LISA's: queries and values of the language model alone; the vision tower has projections of the same names."""
SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything"


@dataclass(frozen=True)
class Dialogue:
    """How a conversation is written: `opening` up to and including the image, `again` before every further question, `answer`
    between a question and its answer, `end` the token that closes an answer."""

    opening: str
    again: str
    answer: str
    end: str


@dataclass(frozen=True)
class SamKind:
    """Shape of a SAM (Kirillov et al. 2023) and where it comes from; the defaults are those of `segment_anything`.

    `pixels` belongs to the weights: "sam" is the longest side resized to `side`, ImageNet mean and deviation, zeros below and to
    the right; "medsam" is a resize to the square and each image's range to 0..1 (Ma et al. 2024).
    """

    file: str
    source: str
    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    pixels: str = "sam"
    side: int = 1024
    patch: int = 16
    window: int = 14
    prompt_dim: int = 256
    decoder_heads: int = 8
    decoder_mlp_dim: int = 2048


SAMS: dict[str, SamKind] = {
    "vit_h": SamKind("sam_vit_h_4b8939", f"{SAM_URL}/sam_vit_h_4b8939.pth", 1280, 32, 16, (7, 15, 23, 31)),
    "vit_b": SamKind("sam_vit_b_01ec64", f"{SAM_URL}/sam_vit_b_01ec64.pth", 768, 12, 12, (2, 5, 8, 11)),
    "medsam": SamKind(
        "medsam_vit_b",
        "the link in https://github.com/bowang-lab/MedSAM",
        768,
        12,
        12,
        (2, 5, 8, 11),
        "medsam",
    ),
}


@dataclass(frozen=True)
class LargeConfig:
    """Everything that decides how base weights and adapter fit together.

    `base` is a name on the Hugging Face hub or a directory. What the language model sees is limited to `context_side` (0 = as its
    processor decides); with `pad` it is made square first, since CLIP's processor cuts off what is not. Each `[SEG]` makes
    `prompt_tokens` prompts, from the state at it (`seg_state` "token") or just before it ("predicting", as LISA does).
    """

    preset: str
    base: str
    dialogue: Dialogue
    sam: SamKind = SAMS["vit_h"]
    context_side: int = 0
    pad: bool = False
    lora_targets: str = LORA_TARGETS
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    prompt_tokens: int = 1
    seg_state: str = "token"
    max_new_tokens: int = 256
    targets: tuple[str, ...] = ()
    calibration: tuple[float, float] = (1.0, 0.0)

    @property
    def image_size(self) -> int:
        """Side of SAM's square, in which clicks are given."""
        return self.sam.side

    @property
    def question_encoder(self) -> str:
        """The language model reads questions itself."""
        return "scratch"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LargeConfig:
        """Inverse of `to_json`; raises `CheckpointError` where the fields are not those of this version."""
        try:
            values: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
            }
            values["dialogue"] = Dialogue(**data["dialogue"])
            values["sam"] = SamKind(**{**data["sam"], "global_blocks": tuple(data["sam"]["global_blocks"])})
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"config.json does not describe a large model as this version of medsegr writes it ({error}); copy it anew."
            ) from error


LARGE_PRESETS: dict[str, LargeConfig] = {
    "llava-med-7b": LargeConfig(
        "llava-med-7b",
        "chaoyinshe/llava-med-v1.5-mistral-7b-hf",
        Dialogue("[INST] <image>\n", "[INST] ", " [/INST]", "</s>"),
        pad=True,
    ),
    "llava-1.5-7b": LargeConfig(
        "llava-1.5-7b",
        "llava-hf/llava-1.5-7b-hf",
        Dialogue("USER: <image>\n", "USER: ", " ASSISTANT:", "</s>"),
        pad=True,
    ),
    "qwen2.5-vl-7b": LargeConfig(
        "qwen2.5-vl-7b",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        Dialogue(
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            "<|vision_start|><|image_pad|><|vision_end|>",
            "\n<|im_start|>user\n",
            "<|im_end|>\n<|im_start|>assistant\n",
            "<|im_end|>",
        ),
        context_side=672,
    ),
}


def large_preset(name: str, sam: str = "vit_h", base: str | None = None) -> LargeConfig:
    """A preset with another SAM or base directory; raises `MedSegRError` for unknown names."""
    for what, given, known in (("large preset", name, LARGE_PRESETS), ("SAM", sam, SAMS)):
        if given not in known:
            raise MedSegRError(f"Unknown {what} '{given}': expected one of {', '.join(known)}.")
    preset = LARGE_PRESETS[name]
    return replace(preset, sam=SAMS[sam], base=base or preset.base)


def no_adapter(name: str) -> CheckpointError:
    """Why a large preset does not answer: the base model alone has never seen a `[SEG]`."""
    return CheckpointError(
        f"The preset {name} cannot answer without a trained adapter: train one with `medsegr pretrain QA.jsonl --preset {name} "
        "--steps 5000 --device cuda --out DIR`, then give DIR as the checkpoint."
    )
