"""Certified truths: long chains that must pass tests."""
