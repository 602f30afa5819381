"""Load generators. Each runs as a program of its own and prints one JSON object as its last line."""
