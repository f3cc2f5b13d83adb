"""One module per DVC stage: read parameters and inputs, call the floors below, write outputs and a record."""
