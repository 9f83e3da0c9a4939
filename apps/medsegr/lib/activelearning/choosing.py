"""MONAI Label's strategies, as thin as they can be: which image is chosen, and why, is `medsegr.choosing`'s."""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from medsegr.choosing import Chooser, NothingLeft
from medsegr.choosing.strategies import DESCRIPTIONS


class Chosen(Strategy):  # type: ignore[misc]
    """One strategy of `medsegr.choosing` under its name."""

    def __init__(self, name: str, chooser: Chooser) -> None:
        super().__init__(DESCRIPTIONS[name])
        self.name, self.chooser = name, chooser

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """{"id", "why"} of the choice among the images without a label, None when nothing may be offered."""
        images = datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels"))
        try:
            choice = self.chooser.next(images, self.name)
        except NothingLeft:
            return None
        return {"id": choice.image, "why": choice.why}


def strategies(chooser: Chooser) -> dict[str, Strategy]:
    """All of them by name, as `MONAILabelApp.init_strategies` wants them."""
    return {name: Chosen(name, chooser) for name in DESCRIPTIONS}
