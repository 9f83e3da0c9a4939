"""The strategies by name. Each is a pure function of a `Field` and says why it chose.

Where the model has not looked at anything yet, every one of them chooses at random and says so: a choice is never held up by the
model. References: entropy sampling and query by disagreement, Settles, "Active learning literature survey" (2009), ch. 3;
farthest-point selection, Sener and Savarese, ICLR 2018 (k-centre greedy).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from medsegr.choosing.choice import Choice, Field
from medsegr.choosing.diversity import distances
from medsegr.choosing.look import Look

Strategy = Callable[[Field], Choice]
DEFAULT = "mixture"
POOL_SHARE = 0.25
"""Share of the images that the mixture calls least sure."""
POOL_LEAST = 4
UNSEEN = "The model has not looked at any of them yet"


def random_image(field: Field) -> Choice:
    """Any image, all alike."""
    image = field.rng.choice(field.images)
    return Choice(image, f"Chosen at random among {_images(field)}.", "random")


def random_with_foreground(field: Field) -> Choice:
    """At random, but only images in which the model's overview sees something, as long as there are such."""
    showing = [look for look in field.looked if look.seen]
    if not showing:
        found = "The model sees nothing that it knows in any of them" if field.looked else UNSEEN
        return _fallback(field, "foreground", found)
    chosen = field.rng.choice(showing)
    why = f"Chosen at random among the {len(showing)} of {_images(field)} in which the model sees something it knows"
    return Choice(chosen.image, f"{why}; here {_seen(chosen)}.", "foreground")


def most_entropy(field: Field) -> Choice:
    """The image about which most of the model's yes/no decisions are open."""
    if not field.looked:
        return _fallback(field, "entropy", UNSEEN)
    chosen = max(field.looked, key=lambda look: look.entropy)
    return Choice(chosen.image, f"{_unsure(chosen)} It is the least sure of {field.share} images.", "entropy")


def most_disagreement(field: Field) -> Choice:
    """The image where text and masks, or two ways of asking for the same, contradict each other most; of those that are equal
    (often none at all), the one of most entropy."""
    if not field.looked:
        return _fallback(field, "disagreement", UNSEEN)
    chosen = max(field.looked, key=lambda look: (look.disagreement, look.entropy))
    if chosen.disagreement == 0:
        why = f"The model contradicts itself on none of {field.share} images. {_unsure(chosen)}"
        return Choice(chosen.image, why, "disagreement")
    why = f"{_contradiction(chosen)} It contradicts itself most of {field.share} images."
    return Choice(chosen.image, why, "disagreement")


def mixture(field: Field) -> Choice:
    """Of the quarter that is least sure (mean rank in entropy and disagreement; images that show something known first), the one
    that is farthest from every image that is known already."""
    if not field.looked:
        return _fallback(field, "mixture", UNSEEN)
    showing = [look for look in field.looked if look.seen] or field.looked
    ranks = _mean_ranks(showing)
    ordered = sorted(showing, key=lambda look: ranks[look.image], reverse=True)
    pool = ordered[: max(POOL_LEAST, round(POOL_SHARE * len(ordered)))]
    known = [field.looks[image] for image in field.known if image in field.looks]
    apart = distances([look.embedding for look in pool], [look.embedding for look in known])
    if apart is None:
        chosen = pool[0]
        why = f"{_reason(chosen)} It is the least sure of {field.share} images."
        return Choice(chosen.image, why, "mixture")
    chosen = pool[max(range(len(pool)), key=lambda i: apart[i])]
    least = (
        f"Of the {len(pool)} images it is least sure of, this one is least like the {len(known)} seen before."
    )
    return Choice(chosen.image, f"{_reason(chosen)} {least}", "mixture")


STRATEGIES: Mapping[str, Strategy] = {
    "random": random_image,
    "foreground": random_with_foreground,
    "entropy": most_entropy,
    "disagreement": most_disagreement,
    DEFAULT: mixture,
}
"""Name -> strategy, as clients send it."""
DESCRIPTIONS: Mapping[str, str] = {
    "random": "A random image without a label",
    "foreground": "A random image in which the model sees something it knows",
    "entropy": "The image that the model is least sure of",
    "disagreement": "The image where text and masks, or two ways of asking, contradict each other most",
    DEFAULT: "An image that the model is unsure of and that differs from those seen before",
}


def _mean_ranks(looks: list[Look]) -> dict[str, float]:
    """Mean of each image's ranks in entropy and in disagreement; equals share the mean of their ranks."""
    ranks = [_ranks([look.entropy for look in looks]), _ranks([look.disagreement for look in looks])]
    return dict(zip((look.image for look in looks), np.mean(ranks, axis=0).tolist(), strict=True))


def _ranks(values: list[float]) -> NDArray[np.float64]:
    """[n] from 0, the smallest first."""
    ordered = np.sort(values)
    below, upto = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return np.asarray((below + upto - 1) / 2, dtype=np.float64)


def _images(field: Field) -> str:
    n = len(field.images)
    return f"{n} image{'' if n == 1 else 's'} without a label"


def _fallback(field: Field, strategy: str, reason: str) -> Choice:
    image = field.rng.choice(field.images)
    return Choice(image, f"{reason}, so this one is chosen at random among {_images(field)}.", strategy)


def _seen(look: Look) -> str:
    return ", ".join(f"{name} ({chance:.0%})" for name, chance in look.seen[:3])


def _unsure(look: Look) -> str:
    most = f", most of all on {look.doubted[0]} ({look.doubted[1]:.0%})" if look.doubted else ""
    return f"About {look.entropy:.1f} bits of the model's decisions about this image are open{most}."


def _contradiction(look: Look) -> str:
    clauses = [(look.mismatch, look.mismatch_why), (look.paraphrase, look.paraphrase_why)]
    said = [clause for weight, clause in sorted(clauses, key=lambda c: -c[0]) if weight > 0]
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}."


def _reason(look: Look) -> str:
    return _contradiction(look) if look.disagreement >= 0.25 else _unsure(look)
