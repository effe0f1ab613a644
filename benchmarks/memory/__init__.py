"""Resident memory and disk: shared against separate."""
