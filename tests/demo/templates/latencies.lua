-- Called by wrk at its end: the figures as one line of JSON, times in microseconds.
function done(summary, latency, requests)
  local points = {}
  local function add(percentile)
    points[#points + 1] = string.format("[%.3f,%d]", percentile, latency:percentile(percentile))
  end
  for percentile = 1, 99 do add(percentile) end
  for tenth = 1, 9 do add(99 + tenth / 10) end
  for hundredth = 1, 9 do add(99.9 + hundredth / 100) end
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"duration":%d,"errors":%d,"mean":%.3f,"percentiles":[%s]}\n',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency.mean, table.concat(points, ",")))
end
