"""Optrode."""
