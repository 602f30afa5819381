"""Side-by-side load harness: `python -m load list | run | report`. Start reading in `profiles.py`."""
