-- One fixed POST body from the file LOAD_BODY; prints the figures as one JSON line.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = assert(io.open(os.getenv("LOAD_BODY"), "rb"))
wrk.body = file:read("*a")
file:close()

function done(summary, latency)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  local seconds = summary.duration / 1e6
  io.write(string.format(
    '\n{"requests": %d, "errors": %d, "rps": %.3f, "p50_ms": %.4f, "p99_ms": %.4f}\n',
    summary.requests, failed, (summary.requests - e.status) / seconds,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
