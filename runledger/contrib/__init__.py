"""Runledger at home in frameworks: one package for each, which alone imports its framework."""
