"""Reading, saving, converting and loading weights."""
