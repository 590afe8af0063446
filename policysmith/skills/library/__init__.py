"""The library: which skills there are, every version of their experts, and which version runs start from."""
