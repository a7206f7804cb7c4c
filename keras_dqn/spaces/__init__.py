"""What an observation is and what an action is, by their Gymnasium spaces."""
