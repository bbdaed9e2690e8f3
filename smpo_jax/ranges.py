"""The numbers that a compiled program can hold; beyond them a setting is 0, infinite or another."""

TINY, LARGE = 1.18e-38, 3.4e38  # the range of normal numbers of float32
MOST = 2**31 - 1  # the largest int32
