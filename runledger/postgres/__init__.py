"""HOW IT IS KEPT: tables, statements, and the functions that run them inside a transaction somebody else owns.

Nothing in this package begins, commits or rolls back.
"""
