"""The whole job with Spark ML on two threads, written as Parquet: spark_job.py LAKE OUT WARM_UP_LAKE

Spark writes TFRecords only with a jar that PyPI does not have; Parquet is the easier output. The session is started,
and does the job on the warm-up lake once, before the clock starts.
"""

import json
import sys
import time

import pyspark
from pyspark.ml import Pipeline
from pyspark.ml.feature import Imputer, StandardScaler, StringIndexer, VectorAssembler
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

NUMBERS, CATEGORIES = [f"I{i + 1}" for i in range(13)], [f"C{i + 1}" for i in range(26)]
FILLED, IDS = [f"{name}_filled" for name in NUMBERS], [f"{name}_id" for name in CATEGORIES]


def job(spark: SparkSession, lake: str, out: str) -> int:
    """Fill and scale the numbers, encode the categories, write Parquet; returns the rows."""
    data = spark.read.parquet(lake).select("label", *NUMBERS, *CATEGORIES)
    stages = [
        Imputer(inputCols=NUMBERS, outputCols=FILLED, strategy="mean"),
        VectorAssembler(inputCols=FILLED, outputCol="numbers"),
        StandardScaler(inputCol="numbers", outputCol="scaled", withMean=True),
        StringIndexer(inputCols=CATEGORIES, outputCols=IDS, handleInvalid="keep"),
    ]
    ready = Pipeline(stages=stages).fit(data).transform(data)
    ready.select("label", "scaled", *[f.col(name).cast("int") for name in IDS]).write.parquet(out)
    return data.count()


def main() -> None:
    """Start, warm up, measure, print."""
    lake, out, warm_up = sys.argv[1:]
    settings = {"spark.driver.memory": "4g", "spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2"}
    builder = SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    job(spark, warm_up, f"{out}/warm-up")
    start = time.perf_counter()
    rows = job(spark, lake, f"{out}/job")
    seconds = time.perf_counter() - start
    spark.stop()
    print(json.dumps({"version": pyspark.__version__, "rows": rows, "seconds": seconds}))


main()
