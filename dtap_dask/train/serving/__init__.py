"""What was fitted, as TensorFlow graphs: raw columns in, features out."""
