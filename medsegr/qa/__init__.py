"""MedSeg-QA: image-mask pairs with multi-turn questions; schema, files, knowledge base and builder."""
