"""dask-ml's and scikit-learn's estimators: made of fitted state, or fitted themselves."""
