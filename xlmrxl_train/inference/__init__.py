"""From a checkpoint to answers: pipelines with the Hub's names and results, and the predictions of a run's own task."""
