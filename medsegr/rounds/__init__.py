"""The learning loop's memory: the turns that were asked and what clinicians made of the answers; rounds and
versions build on the same database.
"""
