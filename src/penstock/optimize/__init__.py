"""`penstock optimize`: the same model in other forms, proven to answer as TensorFlow does, raced on this machine."""
