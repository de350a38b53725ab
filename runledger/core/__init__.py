"""WHAT Runledger is: values, rules, state machines, errors, catalog. No I/O, no clock; stdlib and croniter only."""
