"""Where examples come from: one module a source or a shape of rows, each declaring NAMES."""
