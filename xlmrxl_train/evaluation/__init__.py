"""Exact evaluation over languages, and the report."""
