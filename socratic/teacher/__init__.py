"""Few-shot annotation by a large model: what it is asked, how it is asked durably, and how its replies are read."""
