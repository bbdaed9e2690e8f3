"""What is made of finished runs: policies, evaluations, films, curves and intervals."""
