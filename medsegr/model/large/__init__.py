"""The large presets: a 7B image-text-to-text model from `transformers` with a LoRA, and SAM from `segment_anything`.

`presets` is data, `loading` finds base weights on this machine, `context`, `grounding` and `model` are the parts, `adapter` is
what training writes and serving reads, `fresh` makes the same classes with random weights.
"""
