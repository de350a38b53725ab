"""What must hold in a healthy ledger, one small check each; ``runledger doctor`` and the chaos soak ask the same."""
