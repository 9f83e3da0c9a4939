"""The MedSeg-R model: what it is made of (`presets`, `encoder`, `context`, `grounding`) and how it is stored (`checkpoint`)."""
