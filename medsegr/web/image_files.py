"""An image that may be asked about: what it is called, where its files are, and which stack of a DICOM series is meant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from medsegr.imaging.dicom_series import Stack
from medsegr.web.errors import Refusal
from medsegr.web.requests import AskOptions

Release = Callable[[], None]


@dataclass(frozen=True)
class ImageFile:
    """An image: its id for people and the store, and the file or folder behind it.

    A DICOM series has `stacks`; `n` is the number of the one that is meant, counted from 1, None until `chosen` or for other
    images. `hold` keeps the files from being evicted until what it returns is called.
    """

    id: str
    path: Path
    stacks: tuple[Stack, ...] = ()
    n: int | None = None
    hold: Callable[[], Release] | None = None

    @property
    def stack(self) -> Stack | None:
        """The stack that is meant."""
        return self.stacks[self.n - 1] if self.n else None

    @property
    def reading(self) -> int | None:
        """The stack's number where a reader of `path` has to be told it."""
        return self.n if len(self.stacks) > 1 and self.path.is_dir() else None

    def chosen(self, options: AskOptions) -> tuple[ImageFile, tuple[int, int] | None]:
        """The image with its stack, and the first and last slice asked for (None: all); raises `Refusal` 404 or 422."""
        this = options.slices == "this"
        if not self.stacks:
            if options.instance:
                raise Refusal(422, "`instance` is understood for DICOM series only; leave it out.")
            return self, options.slice_range
        if this and not options.instance:
            raise Refusal(422, '`slices` is "this"; `instance` has to name the image that is meant.')
        n, index = self._find(options.instance, options.frame) if options.instance else (1, 0)
        stack = self.stacks[n - 1]
        image = replace(self, n=n)
        if not stack.is_volume:
            return replace(image, path=stack.paths[0]), None
        return image, (index, index) if this else options.slice_range

    def _find(self, instance: str, frame: int | None) -> tuple[int, int]:
        """Stack number and plane of an image; without a frame, the first one of the instance in the order of planes."""
        for n, stack in enumerate(self.stacks, start=1):
            for index, slice_ in enumerate(stack.slices):
                if slice_.sop_uid == instance and frame in (None, slice_.frame):
                    return n, index
        raise Refusal(
            404,
            "This series has no image of that `instance` and `frame`; `GET /medsegr/series/{uid}` lists them.",
        )
