"""What every room stands on: config, events, rpc, storage, telemetry, security, audit. Knows no medicine."""
