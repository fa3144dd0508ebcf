"""One file a family: LAYOUT, pure data. NAMES are the values of config.model_type."""
