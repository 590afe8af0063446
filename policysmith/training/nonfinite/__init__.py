"""Numbers that are not finite (NaN, inf): found in environments and in updates, left out, told of."""
