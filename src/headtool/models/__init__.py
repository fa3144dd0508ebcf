"""Everything that knows transformers: one interface, every architecture."""
