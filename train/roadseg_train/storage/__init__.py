"""Files on disk and in S3 buckets, behind one interface."""
