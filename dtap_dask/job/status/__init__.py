"""The status of runs: kept by the run itself, shown here, published to the scheduler and the output folder."""
