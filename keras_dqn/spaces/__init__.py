"""Describes observations and actions by their Gymnasium spaces."""
