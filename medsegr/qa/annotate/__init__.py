"""LLM-assisted annotation: a language model writes questions, answers and dialogues about labelled images; plain code
decides what is kept."""
