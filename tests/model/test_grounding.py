"""A sentence and its mask speak of the same structure."""

from __future__ import annotations

from dataclasses import replace

import torch

from medsegr.model.grounding import CLEAR
from medsegr.model.medsegr import MedSegR


def test_a_prompt_that_stands_for_a_neighbour_gives_way_to_the_name_of_what_the_words_say(
    tiny: MedSegR,
) -> None:
    head = tiny.grounding
    torch.nn.init.normal_(head.names.weight)
    own, other = head.names.weight.detach()[:2]
    given = torch.stack([other, torch.lerp(own, other, 0.49), torch.lerp(own, other, 0.2), other])
    found = head.agreeing(given, torch.tensor([0, 0, 0, -1]))
    assert torch.equal(found[:2], torch.stack([own, own]))
    assert torch.equal(found[2:], given[2:])  # clear enough; no known structure is named
    assert 0.2 / 0.8 < CLEAR < 0.49 / 0.51


@torch.inference_mode()
def test_masks_follow_the_words(tiny: MedSegR) -> None:
    torch.manual_seed(1)
    side = tiny.config.image_size
    features = tiny.encode_image(torch.randint(0, 255, (2, side, side, 3), dtype=torch.uint8))
    states = torch.randn(2, tiny.config.context_dim)
    free = tiny.decode_masks(features, states, targets=torch.tensor([1, -1]))
    tiny.config = replace(tiny.config, prompts_at_names=True)
    none = tiny.decode_masks(features, states, targets=torch.tensor([-1, -1]))
    held = tiny.decode_masks(features, states, targets=torch.tensor([1, -1]))
    assert torch.equal(free.logits, none.logits)
    assert torch.equal(held.logits[[1, 3]], free.logits[[1, 3]])
    assert not torch.allclose(held.logits[[0, 2]], free.logits[[0, 2]])
    index = torch.tensor([0, 1])
    by_name = tiny.grounding.decode(
        features, index, tiny.grounding.names(torch.tensor([1, 1])), torch.zeros(2, 1, 2), -torch.ones(2, 1)
    )
    assert torch.allclose(held.logits[[0, 2]], by_name.logits, atol=1e-5)
