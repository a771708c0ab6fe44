"""What is kept: records of runs, their files, where they came from."""
