"""Images in, masks out: reading, windowing, measuring, drawing and writing, each on the input's own grid."""

from __future__ import annotations

from medsegr.imaging.measuring import measure
from medsegr.imaging.overlays import COLOURS, overlay
from medsegr.imaging.reading import canonical_modality, read_image
from medsegr.imaging.types import Picture, Volume
from medsegr.imaging.windowing import to_rgb, volume_intensity_range
from medsegr.imaging.writing import write_label_map

__all__ = [
    "COLOURS",
    "Picture",
    "Volume",
    "canonical_modality",
    "measure",
    "overlay",
    "read_image",
    "to_rgb",
    "volume_intensity_range",
    "write_label_map",
]
