"""The learning loop's memory: today the turns that were asked; corrections, rounds and versions build on the
same store.
"""
