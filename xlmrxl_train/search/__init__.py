"""A search for the settings that score best on the validation split: many runs, each a process and a folder of its own.

`space` is what may be drawn, `study` which trials there are, `working` runs them, `results` tells what came of them.
"""
