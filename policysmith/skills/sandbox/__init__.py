"""Code of skills as data: translated into operations of a closed table, never executed as it was written."""
