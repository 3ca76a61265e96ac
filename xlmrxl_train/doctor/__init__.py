"""Is this machine ready for a run? Each check gives findings: good, worth a look, or red, with what to do about it."""
