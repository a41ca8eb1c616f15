"""The same items asked of many checkpoints: one stream, one row for each item and checkpoint."""
