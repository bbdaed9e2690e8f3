"""Pure maths: arrays in, arrays out. Knows no environment, logger or clock."""
