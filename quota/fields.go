package quota

import (
	"strconv"

	"github.com/weirmesh/weir/proxy/exchange"
)

// policyField is what RateLimit-Policy says (draft-ietf-httpapi-ratelimit-headers): a
// list of structured fields, one for each limit.
func policyField(limits []exchange.Limit) string {
	var b []byte
	for i, l := range limits {
		b = item(b, i, l.Name)
		b = strconv.AppendUint(append(b, ";q="...), l.Requests, 10)
		b = strconv.AppendInt(append(b, ";w="...), int64(l.Window.Seconds()), 10)
	}
	return string(b)
}

func item(b []byte, i int, name string) []byte {
	if i > 0 {
		b = append(b, ", "...)
	}
	return append(append(append(b, '"'), name...), '"') // names are labels: nothing is to be escaped
}

// Policy is the RateLimit-Policy field: the limits.
func (a *Account) Policy() string { return a.policy }

// AppendRemaining appends the RateLimit field: what remains of each limit, as far as
// this proxy knows, and in how many seconds its window ends. Of a limit of which nothing
// was heard nothing is said.
func (a *Account) AppendRemaining(b []byte) []byte {
	now, from := a.client.now(), len(b)
	for i, l := range a.limits {
		block := l.block.Load()
		if block == nil || now >= block.ends.Load() {
			continue
		}
		named := 0
		if len(b) > from {
			named = 1
		}
		b = item(b, named, a.terms[i].Name)
		remaining := min(uint64(max(block.left.Load(), 0))+l.remaining.Load(), a.terms[i].Requests)
		b = strconv.AppendUint(append(b, ";r="...), remaining, 10)
		b = strconv.AppendInt(append(b, ";t="...), seconds(block.ends.Load()-now), 10)
	}
	return b
}

// seconds rounds up.
func seconds(nanos int64) int64 { return (nanos + 1e9 - 1) / 1e9 }
