"""Masks by image, {(SOPInstanceUID, frame): [rows, columns] bool}, of OHIF, the server and the files, compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.system.ask_page import Answer, AskPage
from tests.system.servers import TARGETS, MedSegRServer
from tests.system.studies import Plane, Series

Masks = dict[Plane, NDArray[np.bool_]]
LABELS = ("liver", "gallbladder", "spleen")


def same(one: Masks, other: Masks) -> bool:
    """Whether two masks hold the same pixels on the same images; an image that one does not name is empty there."""
    return all(
        np.array_equal(one[plane], other[plane])
        if plane in one and plane in other
        else not (one[plane] if plane in one else other[plane]).any()
        for plane in one.keys() | other.keys()
    )


def check_drawn(
    page: AskPage, server: MedSegRServer, answer: Answer, series: Series, labels: tuple[str, ...] = LABELS
) -> None:
    """Every finding: OHIF = server = file, on every image, and something is there."""
    turn = server.get(f"/medsegr/turns/{answer.turn}").json()
    assert [finding["label"] for finding in turn["findings"]] == sorted(labels, key=TARGETS.index)
    for finding in turn["findings"]:
        label, n = finding["label"], finding["n"]
        shown, expected = page.drawn(label), series.expected(label)
        given = server.mask_by_instance(answer.turn, n, series.uid, turn.get("stack") or 1)
        assert any(mask.any() for mask in shown.values()), f"{label} is not drawn"
        assert same(shown, expected), f"OHIF shows another {label} than the file"
        assert same(given, expected), f"the server gives another {label} than the file"
