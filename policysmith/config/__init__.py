"""Text becomes checked data: loading, options, the experiment file, its schema and its formats; no torch here."""
