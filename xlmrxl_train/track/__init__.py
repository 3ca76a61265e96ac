"""Where a run tells how it goes: the console, and one JSON object per line in metrics.jsonl."""
