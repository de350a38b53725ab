"""Other job systems beside ours: each in its own environment, driven through one small protocol.

``adapter`` and ``board`` run in a peer's own Python, so they need nothing but the standard library.
"""
