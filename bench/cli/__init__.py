"""The console command: one command a file, its options beside its work."""
