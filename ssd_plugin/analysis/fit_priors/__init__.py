"""Fit priors to the objects of a training set. ``docs/fit_priors.md`` tells the method."""
