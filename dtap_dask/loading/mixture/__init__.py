"""Several datasets with weights in one stream of batches."""
