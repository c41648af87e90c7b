-- Posts bodies from files in turn: wrk ... -s wrk.lua URL -- FOLDER CONTENT_TYPE ACCEPT
-- Prints one line of JSON at the end.

local requests, turn = {}, 0

function init(args)
  local headers = { ["Content-Type"] = args[2], ["Accept"] = args[3] }
  while true do
    local file = io.open(args[1] .. "/" .. #requests, "rb")
    if not file then break end
    requests[#requests + 1] = wrk.format("POST", nil, headers, file:read("*a"))
    file:close()
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "not_2xx": %d, "broken": %d, "timeouts": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    errors.status, errors.connect + errors.read + errors.write, errors.timeout))
end
