"""`encode`: everything a user has through one stage, in parts that survive a kill."""
