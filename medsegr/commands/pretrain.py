"""`medsegr pretrain`: train a checkpoint from MedSeg-QA files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsegr.errors import MedSegRError


def pretrain(
    qa: Annotated[list[Path], typer.Argument(help="MedSeg-QA files (JSON Lines), all in one folder.")],
    out: Annotated[
        Path,
        typer.Option(help="Checkpoint directory to write; OUT.resume beside it keeps the state of the run."),
    ],
    preset: Annotated[
        str,
        typer.Option(help="Size of a new model; a large preset is trained with LoRA on its base weights."),
    ] = "embedded",
    sam: Annotated[str, typer.Option(help="Of a large preset: vit_h, vit_b or medsam.")] = "vit_h",
    base: Annotated[
        str | None, typer.Option(help="Of a large preset: directory of the base weights, else the HF cache.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Of a large preset: conversations at once.")] = 2,
    accumulate: Annotated[int, typer.Option(help="Of a large preset: batches per step.")] = 10,
    init: Annotated[
        Path | None, typer.Option(help="Start from this checkpoint instead of fresh weights.")
    ] = None,
    init_vision: Annotated[
        Path | None,
        typer.Option(help="Take image encoder and mask decoder from this checkpoint, the rest fresh."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimizer steps; give this or --minutes.")] = 0,
    minutes: Annotated[float, typer.Option(help="Minutes of training; give this or --steps.")] = 0.0,
    learning_rate: Annotated[
        float, typer.Option(help="0 = 1e-3, or 3e-4 for the LoRA of a large preset.")
    ] = 0.0,
    seed: Annotated[int, typer.Option()] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    bf16: Annotated[bool, typer.Option(help="Mixed precision in bfloat16.")] = True,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 = torch's choice.")] = 0,
    licence: Annotated[
        str, typer.Option(help="any, or permissive to leave out non-commercial sets.")
    ] = "any",
    question_encoder: Annotated[
        str, typer.Option(help="minilm (frozen sentence encoder) or scratch.")
    ] = "minilm",
    lora_rank: Annotated[
        int, typer.Option(help="With --init: train a LoRA of this rank instead of the whole language model.")
    ] = 0,
    stage: Annotated[
        str,
        typer.Option(
            help="vision (encoder and mask decoder from label maps), language (the rest), or joint."
        ),
    ] = "joint",
    image_size: Annotated[
        int, typer.Option(help="Side in pixels that images are resized to; 0 = the preset's.")
    ] = 0,
    images: Annotated[int, typer.Option(help="Images per step.")] = 12,
    masks: Annotated[int, typer.Option(help="Masks decoded per step.")] = 48,
    conversations: Annotated[int, typer.Option(help="Conversations per image.")] = 6,
    augment: Annotated[bool, typer.Option(help="Warp and re-light the images.")] = True,
    calibration_share: Annotated[
        float, typer.Option(help="Share of training patients kept out to fit the confidence.")
    ] = 0.05,
    weight_text: Annotated[float, typer.Option(help="Weight of the text cross-entropy.")] = 1.0,
    weight_bce: Annotated[float, typer.Option(help="Weight of the mask cross-entropy.")] = 2.0,
    weight_dice: Annotated[float, typer.Option(help="Weight of the Dice loss.")] = 0.5,
) -> None:
    """Train on the CPU (bf16) or a GPU; an interrupted run goes on where its last state was saved."""
    from medsegr.model.large.presets import LARGE_PRESETS, large_preset
    from medsegr.model.losses import LossWeights
    from medsegr.model.presets import PRESETS
    from medsegr.training.batches import Sampling
    from medsegr.training.pretrain import PretrainOptions, run
    from medsegr.training.stages import STAGES

    _one_of("preset", preset, (*PRESETS, *LARGE_PRESETS))
    _one_of("licence class", licence, ("any", "permissive"))
    if preset in LARGE_PRESETS:
        from medsegr.training.large import LargeOptions, run_large

        run_large(LargeOptions(
            tuple(qa), out, large_preset(preset, sam, base), init=init, steps=steps, batch=batch, accumulate=accumulate,
            learning_rate=learning_rate or 3e-4, seed=seed, device=device, licence=licence,
            loss=LossWeights(text=weight_text, bce=weight_bce, dice=weight_dice),
        ))  # fmt: skip
        return
    _one_of("question encoder", question_encoder, ("minilm", "scratch"))
    _one_of("stage", stage, STAGES)
    options = PretrainOptions(
        qa=tuple(qa), out=out, preset=preset, init=init, init_vision=init_vision, steps=steps, minutes=minutes,
        learning_rate=learning_rate or 1e-3, seed=seed, device=device, bf16=bf16, threads=threads, licence=licence,
        question_encoder=question_encoder, lora_rank=lora_rank, stage=stage, augment=augment,
        overrides={"image_size": image_size} if image_size else {},
        sampling=Sampling(images=images, masks=masks, conversations=conversations),
        calibration_share=calibration_share, loss=LossWeights(text=weight_text, bce=weight_bce, dice=weight_dice),
    )  # fmt: skip
    run(options)


def _one_of(what: str, given: str, allowed: tuple[str, ...]) -> None:
    """Raises `MedSegRError` where `given` is not among `allowed`."""
    if given not in allowed:
        raise MedSegRError(f"Unknown {what} '{given}': expected one of {', '.join(allowed)}.")
