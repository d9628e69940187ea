"""The evaluation room: which pooling suits a problem."""
