"""Side by side, interleaved, medians: the framework beside a hand-written loop on the same tables and statements."""
