"""When a structure may be called absent. Unlabelled is not absent: only exhaustive labels, a declaration or
distant anatomy allow it."""

from __future__ import annotations

from collections.abc import Sequence

from medsegr.qa.facts import REGIONS
from medsegr.qa.folders import LabelledSet

# Regions that one image may show together, whatever was drawn in it: a chest X-ray shows the upper abdomen, a
# cardiac MR the spine.
OVERLAPPING = frozenset(
    frozenset(pair)
    for pair in (
        ("abdomen", "chest"),
        ("chest", "heart"),
        ("abdomen", "heart"),
        ("chest", "breast"),
        ("heart", "breast"),
        ("abdomen", "breast"),
        ("chest", "spine"),
        ("abdomen", "spine"),
        ("heart", "spine"),
        ("brain", "jaw"),
        ("brain", "spine"),
        ("jaw", "spine"),
        ("brain", "eye"),
        ("skin", "foot"),
        ("skin", "limb"),
        ("foot", "limb"),
        ("breast", "skin"),
        ("fetus", "brain"),
        ("fetus", "abdomen"),
        ("fetus", "heart"),
        ("fetus", "spine"),
        ("bowel", "abdomen"),
        ("bowel", "chest"),
        ("bowel", "heart"),
        ("bowel", "spine"),
        ("bowel", "breast"),
        ("bowel", "fetus"),
        ("pelvis", "abdomen"),
        ("pelvis", "bowel"),
        ("pelvis", "spine"),
        ("pelvis", "fetus"),
        ("pelvis", "limb"),
        ("pelvis", "skin"),
        ("neck", "chest"),
        ("neck", "heart"),
        ("neck", "jaw"),
        ("neck", "spine"),
        ("neck", "brain"),
        ("neck", "eye"),
        ("neck", "breast"),
        ("neck", "skin"),
        ("neck", "fetus"),
        *(("bone", other) for other in REGIONS if other != "bone"),
    )
)
# Tissues found nearly everywhere, and names that mean something else in another region.
EVERYWHERE = frozenset({"blood vessel", "nerve"})
HOMONYMS = {
    "left ventricle": frozenset({"brain"}),
    "right ventricle": frozenset({"brain"}),
    "tumour core": frozenset({"breast", "skin", "cells"}),
    "enhancing tumour": frozenset({"breast", "skin", "cells"}),
    "tumour necrosis": frozenset({"breast", "skin", "cells"}),
    "peritumoural oedema": frozenset({"breast", "skin", "cells"}),
}


def regions_exclude(one: str, other: str) -> bool:
    """Whether an image of one region cannot show structures of the other."""
    return one != other and frozenset((one, other)) not in OVERLAPPING


def impossible_targets(shown: LabelledSet, sets: Sequence[LabelledSet]) -> tuple[str, ...]:
    """Targets of other sets that no image of `shown` can contain, because they belong to a distant region, in
    the sets' order."""
    owners: dict[str, list[str]] = {}
    for other in sets:
        for name in other.targets:
            owners.setdefault(name, []).append(other.region)
    return tuple(
        name
        for name, regions in owners.items()
        if name not in shown.targets
        and name not in shown.absent
        and name not in EVERYWHERE
        and shown.region not in HOMONYMS.get(name, ())
        and all(regions_exclude(shown.region, region) for region in regions)
    )
