"""One file a command: its signature is its configuration; heavy imports stand inside the body."""
