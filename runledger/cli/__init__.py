"""HOW PEOPLE CALL IT: the command line. Parses, calls, prints; no rule of the system lives here."""
