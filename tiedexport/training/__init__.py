"""What `tiedexport.train` is made of: the job, the trainer, its resume file, and what it leaves."""
