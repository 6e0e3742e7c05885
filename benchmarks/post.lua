-- wrk's script for every server: POST one file again and again; what happened comes out as one line of JSON.
-- wrk ... -s post.lua URL -- BODY_FILE CONTENT_TYPE [PAUSE_MS | NAME:VALUE]
-- With a pause, each connection waits that long between an answer and its next request. A name with a value is one more field of the requests.

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  wrk.headers["Content-Type"] = args[2]
  file:close()
  local name, value = string.match(args[3] or "", "^([^:]+):(.+)$")
  if name then wrk.headers[name] = value end
  local pause_ms = tonumber(args[3])
  if pause_ms then
    function delay() return pause_ms end
  end
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p90_us": %d, "p99_us": %d, "max_us": %d, ' ..
    '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max,
    e.connect, e.read, e.write, e.status, e.timeout))
end
