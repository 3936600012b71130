"""Folders and S3 buckets, spoken to in one way."""
