"""What is kept of requests for models that are captured: rows with typed columns, in Parquet files.

`kept` is one request as it is noted while it is answered, by reference; `columns` says which
columns a version's rows have and makes them; `files` puts tables into files; `journal` is the queue
and the threads between. Nothing here may slow or fail an answer. Must not import ray or mlflow.
"""
