"""Analytics: every event in a lake of Parquet files, and the figures drawn from it."""
