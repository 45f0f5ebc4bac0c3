"""Measurements. Ratios of two sides that took turns in one run; nothing here is a test."""
