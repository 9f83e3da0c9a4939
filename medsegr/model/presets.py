"""Presets: the sizes of a MedSeg-R model as plain data; building one is `MedSegR(config)`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from medsegr.errors import CheckpointError

SENTENCE_ENCODER = "all-MiniLM-L6-v2"
SENTENCE_ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the shape of the weights.

    `image_size` is the side in pixels of the square the image is resized to (aspect is not kept, as in MedSAM).
    `encoder_channels` are the widths at strides 2, 4, 8, 16 and 32; `encoder_blocks` the residual blocks at strides 4..32;
    `pixel_widths` the widths of the way back up, at strides 16, 8, 4 and 2.
    `question_encoder` is "minilm" (frozen sentence encoder) or "scratch" (the language model's own embeddings).
    `calibration` has slope, offset and the weight of the words (0 if it has two numbers only), see `medsegr.training.calibrate`.
    `denial` has the weights and the offset of the rule by which a structure asked for by name is called absent, see
    `medsegr.denial`; without it only a sure "No" of the language model denies it.
    `seg_state` is "token" (state at `[SEG]`) or "predicting" (state just before it, as LISA does).
    `prompts_at_names` says that training held the prompts of `[SEG]` states at the names of known structures, so that one can be
    compared with them (the language stage does).
    `grounding_head` is "seg_tokens" (a `[SEG]` state is a prompt) or "cross_attention" (the image attends to all that was read).
    """

    image_size: int = 256
    encoder_channels: tuple[int, ...] = (32, 64, 128, 192, 256)
    encoder_blocks: tuple[int, ...] = (2, 2, 2, 2)
    pixel_widths: tuple[int, ...] = (128, 128, 96, 32)
    overview_tokens: int = 48
    grounding_dim: int = 128
    prompt_tokens: int = 2
    high_resolution_skips: bool = True
    context_dim: int = 256
    context_layers: int = 4
    context_heads: int = 4
    context_mlp_dim: int = 640
    question_encoder: str = "minilm"
    question_dim: int = 384
    sentence_encoder: str = SENTENCE_ENCODER
    sentence_encoder_sha256: str = SENTENCE_ENCODER_SHA256
    seg_state: str = "token"
    prompts_at_names: bool = False
    grounding_head: str = "seg_tokens"
    max_new_tokens: int = 160
    pixel_mean: float = 0.35
    pixel_std: float = 0.28
    targets: tuple[str, ...] = ()
    calibration: tuple[float, ...] = (1.0, 0.0, 0.0)
    denial: tuple[float, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelConfig:
        """Inverse of `to_json`; raises `CheckpointError` for keys that this version does not know."""
        unknown = sorted(set(data) - set(cls.__dataclass_fields__))
        if unknown:
            raise CheckpointError(
                f"config.json has keys that this version of medsegr does not know: {', '.join(unknown)}."
            )
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return cls(**values)


PRESETS: dict[str, ModelConfig] = {
    "embedded": ModelConfig(),
    "tiny": ModelConfig(
        image_size=64,
        encoder_channels=(8, 16, 16, 24, 32),
        encoder_blocks=(1, 1, 1, 1),
        pixel_widths=(32, 24, 24, 16),
        grounding_dim=32,
        context_dim=48,
        context_layers=2,
        context_heads=2,
        context_mlp_dim=96,
    ),
}
