"""Laws that hold for every registered type, forever (DESIGN §7)."""
