"""Hadoop's filesystems as fsspec's: `native` speaks to HDFS without Java, `libhdfs` to all that Hadoop reaches."""
