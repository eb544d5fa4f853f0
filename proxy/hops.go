package proxy

import (
	"errors"
	"strconv"

	"github.com/weirmesh/weir/proxy/exchange"
)

var headerMaxForwards = []byte("Max-Forwards")

var errLastHop = &Error{Status: 501, Blame: Client, Code: "no_trace", Detail: "TRACE is not answered here."}

// countHop counts down how many proxies an OPTIONS or a TRACE may still pass, and
// answers the one that may pass none (RFC 9110, section 7.6.2). On other methods the
// field means nothing, and neither does a value that is no number.
func (s *session) countHop(x *exchange.Exchange) (answered bool, err *Error) {
	trace := string(x.Request.Method) == "TRACE"
	if !trace && string(x.Request.Method) != "OPTIONS" {
		return false, nil
	}
	left, bad := strconv.ParseUint(string(x.Request.Fields.Get("max-forwards")), 10, 31)
	switch { // what is too large to count is the most that can be
	case bad != nil && !errors.Is(bad, strconv.ErrRange):
		return false, nil
	case left > 0:
		x.Request.Fields.Set(headerMaxForwards, strconv.AppendUint(nil, left-1, 10))
		return false, nil
	case trace: // whose answer would show what the client's other proxies have added
		return false, errLastHop
	}
	x.Answer(200, nil)
	return true, nil
}
