"""One detector of soft errors a file: NAMES, QUANTITIES, FACTOR, entry(before) and check(state, sites)."""
