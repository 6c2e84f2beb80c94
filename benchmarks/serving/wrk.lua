-- Posts the files named after `--` in turn; path and headers come from wrk's own command line.
local requests = {}
local last = 0

function init(args)
  for index = 1, #args do
    local file = assert(io.open(args[index], "rb"))
    requests[index] = wrk.format("POST", nil, nil, file:read("*a"))
    file:close()
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end
