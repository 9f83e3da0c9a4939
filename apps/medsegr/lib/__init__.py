"""The MedSeg-R app's wiring; everything of substance lives in the package `medsegr`."""
