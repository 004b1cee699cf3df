"""fsspec filesystems for Hadoop: `native` talks to HDFS without Java, `libhdfs` to everything that Hadoop can reach."""
