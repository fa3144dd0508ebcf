"""Scores: a number per head. A module declares NAMES; each name is a function in it, on the view it NEEDS."""
