"""What a run shows to people: figures and one self-contained HTML page."""
