"""Tests of the whole: real servers, a real PACS, a real browser. `make test-system` runs them."""
