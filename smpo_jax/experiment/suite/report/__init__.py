"""A suite's folder as tables and figures."""
