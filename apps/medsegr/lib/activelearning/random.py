"""A random image without a label, those that were not served lately first.

MONAI Label's own strategy fails with status 500 when every candidate was served within this second.
"""

from __future__ import annotations

import random
import time
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy


class Random(Strategy):  # type: ignore[misc]
    """Chances grow with the seconds since an image was served."""

    def __init__(self) -> None:
        super().__init__("A random image without a label")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """{"id", "weight"} of the choice, None when everything is labelled."""
        images = datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels"))
        if not images:
            return None
        name, now = request.get("strategy") or "random", int(time.time())
        served = [
            datastore.get_image_info(image).get("strategy", {}).get(name, {}).get("ts", 0) for image in images
        ]
        weights = [max(1, now - ts) for ts in served]
        (n,) = random.choices(range(len(images)), weights=weights)
        return {"id": images[n], "weight": weights[n]}
