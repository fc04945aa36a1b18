"""What is asked of this machine, of Slurm and of folders before anything is planned or shown."""
