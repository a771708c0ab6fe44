"""Errors of requests that cannot be carried out, as one sentence each."""

from __future__ import annotations


class Refused(Exception):
    """A command that cannot be carried out; one sentence says why and what to do."""


class BadSpec(ValueError):
    """A spec that cannot be read or built; one sentence says what and how to mend it."""
