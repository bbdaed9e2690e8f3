"""Plants of process control: continuous processes that must follow set points within limits."""
