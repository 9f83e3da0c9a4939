"""Physician review of a MedSeg-QA file: the log of verdicts, the queue of what is left, agreement, and applying the verdicts.

Plain values and files; the page that physicians see is `medsegr.web.review`.
"""
