"""What the caches of a large preset are worth: our serving and training against a pipeline that recomputes all, in one run.

    python benchmarks/serving.py [--size 7b|small] [--device cuda|cpu] [--slices 60] [--repeats 3]

The weights are random and have the shapes of LLaVA-Med 7B and SAM ViT-H (`7b`, in bfloat16, for a GPU of 40 GB) or of a pair
scaled down for a CPU (`small`). The answer is scripted (one `[SEG]`), so that a question costs what a real one does.
"Recomputed" is LISA's way: image encoders and the whole prompt run again for every question and every slice, the prompt of the
mask is the state before `[SEG]`. It keeps the key/value cache within an answer, which LISA's script does not, and trains no more
than ours does: its times are a lower bound.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from medsegr.imaging import Volume, to_rgb
from medsegr.model.large.adapter import LargeCheckpoint
from medsegr.model.large.fresh import Size, fresh_llava
from medsegr.model.large.model import LargeMedSegR
from medsegr.model.large.presets import LARGE_PRESETS, SAMS, SamKind
from medsegr.phantom import make_torso
from medsegr.predictor import Predictor
from medsegr.qa.reader import read_qa, write_qa
from medsegr.qa.schema import Conversation, Target, Turn
from medsegr.training.large import Feed, LargeOptions, by_set, optimizer_step, trained_parameters

FIRST, FOLLOW_UP = "Which organ here makes bile and clears toxins from the blood?", "How large is the liver?"
ANSWER = "The <p>liver</p> [SEG] makes bile and clears toxins; it lies under the right dome of the diaphragm."
SIZES: dict[str, tuple[Size, SamKind, torch.dtype]] = {
    "7b": (Size(), SAMS["vit_h"], torch.bfloat16),
    "small": (
        Size(1024, 256, 688, 4, 4, 2, 128, 512, 4, 4, 168, 14),
        SamKind("random", "nowhere", 96, 4, 4, (1, 3), side=256),
        torch.float32,
    ),
}


def random_model(size: str, device: str) -> LargeMedSegR:
    """A model of this size that always says `ANSWER`, after having worked for every token of it."""
    shape, sam, dtype = SIZES[size]
    base, processor = fresh_llava(shape, device, dtype)
    config = replace(LARGE_PRESETS["llava-med-7b"], sam=sam, targets=("liver",))
    with torch.device(device):
        model = LargeMedSegR(config, base, processor)
    model.grounding.sam.image_encoder.to(dtype)
    context = model.to(device).eval().context
    ids = [*context.tokenizer.encode(ANSWER, add_special_tokens=False), context.end_id]

    def scripted(distribution: Tensor, said: Sequence[int]) -> int:
        return ids[len(said)] if int(distribution.argmax()) >= 0 else 0

    vars(context)["choose"] = scripted
    return model


@torch.inference_mode()
def recomputed(
    model: LargeMedSegR, rgb: NDArray[np.uint8], question: str, history: list[tuple[str, str]]
) -> None:
    """One answer with its mask, nothing kept and nothing used of what was there."""
    features = model.encode_picture(torch.from_numpy(np.array(rgb)))
    found = model.context.generate(model.context.prefix(features.context), history, question)
    assert found is not None and len(found.states) == 1
    masks = model.decode_masks(features, found.states)
    (F.interpolate(masks.logits[None], rgb.shape[:2], mode="bilinear")[0] > 0).cpu()


class Meter:
    """Times calls on a device and prints rows of ours against recomputed."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")

    def seconds(self, call: Callable[[], object]) -> float:
        """Wall time of one call, all kernels done."""
        self._wait()
        began = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def peak_gib(self) -> float:
        """Peak memory since the last call on a GPU; of the process so far on a CPU."""
        if not self.cuda:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        peak = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
        return peak


def row(what: str, unit: str, ours: float, theirs: float, gain: float) -> None:
    """One line of the table."""
    print(f"{what:<30} {ours:10.3f} {theirs:12.3f} {unit:<8} {gain:8.1f} x", flush=True)


def questions(
    model: LargeMedSegR, volume: Volume, meter: Meter, device: str, slices: int, repeats: int
) -> None:
    """First question, follow-up and a volume."""
    checkpoint = LargeCheckpoint(model, {"version": "random", "licence": "none"}, Path())
    predictor = Predictor(checkpoint, None, device, (1.0,), 4 * 2**30)
    before = replace(model.config, seg_state="predicting")
    times: dict[str, list[float]] = {"first": [], "follow": [], "first again": [], "follow again": []}
    for n in range(repeats + 1):
        pixels = np.array(Image.fromarray(to_rgb(volume.slice_pixels(20), "CT")).resize((512, 512)))
        pixels[0, n] = 255  # other pixels, so that no cache helps a first question
        history = [(FIRST, ANSWER)]

        def first(pixels: NDArray[np.uint8] = pixels) -> None:
            predictor.set_image(pixels, "PHOTO")
            assert "[SEG]" not in predictor.ask(FIRST).text

        turn = {
            "first": meter.seconds(first),
            "follow": meter.seconds(lambda h=history: predictor.ask(FOLLOW_UP, h)),  # type: ignore[misc]
        }
        model.context.config = before
        for name, question, said in (("first again", FIRST, []), ("follow again", FOLLOW_UP, history)):
            turn[name] = meter.seconds(
                lambda p=pixels, q=question, h=said: recomputed(model, p, q, h)  # type: ignore[misc]
            )
        model.context.config = model.config
        if n:  # the first round warms up
            for name, seconds in turn.items():
                times[name].append(seconds)
    a, b, c, d = (float(np.median(v)) for v in times.values())
    row("first question", "s", a, c, c / a)
    row("follow-up", "s", b, d, d / b)
    meter.peak_gib()
    chosen = range(min(slices, volume.n_slices))
    ours = meter.seconds(lambda: predictor.ask_volume(volume, FIRST, slices=chosen))
    memory = meter.peak_gib()
    model.context.config = before
    pictures = [to_rgb(volume.slice_pixels(k), "CT") for k in chosen]
    theirs = meter.seconds(lambda: [recomputed(model, p, FIRST, []) for p in pictures])
    model.context.config = model.config
    row(f"volume of {len(chosen)} slices", "s", ours, theirs, theirs / ours)
    again = meter.seconds(lambda: predictor.ask_volume(volume, FOLLOW_UP, slices=chosen))
    row("follow-up on the volume", "s", again, theirs, theirs / again)
    row("peak memory, serving", "GiB", memory, meter.peak_gib(), 1.0)


def write_set(folder: Path, volume: Volume, liver: NDArray[np.bool_]) -> Path:
    """Four phantom slices with a conversation each."""
    conversations = []
    for n, k in enumerate(np.argsort(liver.sum(axis=(0, 1)))[-4:].tolist()):
        Image.fromarray(to_rgb(volume.slice_pixels(k), "CT")).save(folder / f"i{n}.png")
        Image.fromarray(volume.slice_from_volume(k, liver).astype(np.uint8)).save(folder / f"m{n}.png")
        turn = Turn(FIRST, ANSWER, (Target("liver", "liver", f"m{n}.png", (1,)),))
        conversations.append(Conversation(f"c{n}", f"i{n}.png", "CT", "phantom", f"p{n}", "train", (turn,)))
    write_qa(folder / "qa.jsonl", conversations)
    return folder / "qa.jsonl"


def training(model: LargeMedSegR, qa: Path, meter: Meter, device: str, repeats: int) -> None:
    """LoRA steps of two conversations; "recomputed" runs SAM's frozen image encoder anew in every one."""
    options = LargeOptions((qa,), qa.parent / "out", model.config, accumulate=1, device=device)
    model.context.add_lora()
    model.context.base.activation_checkpointing_enable({"use_reentrant": False})
    feed = Feed(model.train(), by_set(list(read_qa(qa))), qa.parent, options)
    optimizer = torch.optim.AdamW(trained_parameters(model), lr=1e-5)
    for _ in range(8):  # every image has been seen
        feed.draw()
    step = {}
    memory = {}
    for name in ("ours", "again"):
        meter.peak_gib()
        spent = []
        for _ in range(max(repeats, 3) + 1):
            if name == "again":
                feed.forget()
            spent.append(meter.seconds(lambda: optimizer_step(model, [feed.draw()], optimizer, options.loss)))
        step[name], memory[name] = 1 / float(np.median(spent[1:])), meter.peak_gib()
    row("LoRA training", "steps/s", step["ours"], step["again"], step["ours"] / step["again"])
    row("peak memory, training", "GiB", memory["ours"], memory["again"], 1.0)


def main() -> None:
    """Run and print."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=tuple(SIZES), default="7b" if gpu else "small")
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--slices", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    meter, torso = Meter(options.device), make_torso(seed=3)
    model = random_model(options.size, options.device)
    n_context, n_sam = (sum(p.numel() for p in m.parameters()) for m in (model.context, model.grounding.sam))
    where = torch.cuda.get_device_name() if meter.cuda else f"CPU, {torch.get_num_threads()} threads"
    print(f"{n_context / 1e6:.0f} M language and vision, {n_sam / 1e6:.0f} M SAM, {where}")
    print(f"{'':<30} {'ours':>10} {'recomputed':>12} {'':<8} {'gain':>10}")
    questions(model, torso.volume, meter, options.device, options.slices, options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        qa = write_set(Path(folder), torso.volume, torso.mask("liver"))
        training(model, qa, meter, options.device, options.repeats)


if __name__ == "__main__":
    main()
