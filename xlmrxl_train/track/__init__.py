"""Where a run tells how it goes: the console, one JSON object per line in metrics.jsonl, and trackers that read it."""
