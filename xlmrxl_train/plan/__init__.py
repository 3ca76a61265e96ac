"""What a run will need, known before it takes any: memory of each rank, bytes on the wire, time, and what would fit."""
