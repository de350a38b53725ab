"""A demonstration on real input: an application of Runledger that uses its public names only, and checks itself.

``runledger demo`` runs it; ``jobs`` is the catalog that the workers import.
"""
